"""PixelPrune against a slow reading of it, cell by cell."""

from __future__ import annotations

import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.pixelprune import pixelprune


def reference(picture) -> list[list[bool]]:
    x = picture.double().tolist()
    stay = []
    for row in range(len(x)):
        stay.append([])
        for column in range(len(x[0])):
            left, above = x[row][column - 1], x[row - 1][column]
            corner = x[row - 1][column - 1]
            if row and column:
                guess = above if corner == left and corner != above else left
            else:
                guess = left if column else above
            stay[-1].append(not (row or column) or x[row][column] != guess)
    return stay


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (5, 8), (12, 12)])
@pytest.mark.parametrize("values", [1, 2, 3])
def test_equals_the_slow_reference(shape, values) -> None:
    made = torch.Generator().manual_seed(values)
    picture = torch.randint(values, (*shape, 1), generator=made).float().repeat(1, 1, 3)
    assert pixelprune(picture).tolist() == reference(picture)
    assert pixelprune(torch.stack((picture, picture + 1)))[1].tolist() == reference(picture)


def test_no_grid() -> None:
    with pytest.raises(InvalidInputError, match=r"cells \[\.\.\., h, w, c\]"):
        pixelprune(torch.zeros(3, 4))
