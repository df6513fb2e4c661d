"""The plan of a shorter prompt, by hand and as properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from token_reduction.apply.splice import (
    assign_places,
    plan_splice,
    read_prompt,
    splice,
)

MARK = 9


class Table(torch.nn.Module):
    """An embedding of width 1 that returns the id itself."""

    def forward(self, ids):
        return ids.unsqueeze(-1).float()


def shortened(ids, counts, tokens, mask=None, positions=None):
    """Ids with images of `counts` placeholders becoming `tokens`; visual tokens are -1, -2, ..."""
    ids = torch.tensor(ids)
    given = None if mask is None else torch.tensor(mask)
    prompt = read_prompt(ids, given)
    plan = plan_splice(prompt, assign_places(prompt, MARK, counts, tokens, "image"))
    visual = -torch.arange(1.0, sum(tokens) + 1).unsqueeze(-1)
    embeddings, out_mask, out_positions = splice(
        plan, ids, visual, Table(), mask=given,
        positions=None if positions is None else torch.tensor(positions),
    )  # fmt: skip
    return (
        embeddings[..., 0].tolist(),
        None if out_mask is None else out_mask.tolist(),
        None if out_positions is None else out_positions.tolist(),
        plan.dropped.tolist(),
    )


def test_one_image():
    out = shortened([[1, 9, 9, 9, 2, 3]], [3], [1], positions=[[0, 1, 2, 3, 4, 5]])
    assert out == ([[1, -1, 2, 3]], None, [[0, 1, 2, 3]], [2])


def test_two_images_with_and_without_text_between():
    ids = [[1, 9, 9, 9, 9, 2, 9, 9, 3]]
    positions = [list(range(9))]
    out = shortened(ids, [2, 2, 2], [1, 2, 1], positions=positions)
    assert out == ([[1, -1, -2, -3, 2, -4, 3]], None, [[0, 1, 2, 3, 4, 5, 6]], [2])


def test_tokens_stay_between_the_text_that_was_around_them():
    """A clip of three frames keeps one token of the first and both of the last."""
    ids = torch.tensor([[1, 9, 9, 2, 9, 9, 3, 9, 9, 4]])
    prompt = read_prompt(ids, None)
    (clip,) = assign_places(prompt, MARK, [6], [3], "image")
    assert clip.apart
    for stays, places in ((False, [0, 1, 2, 3, 4, 5, 6]), (True, [0, 2, 3, 6, 7, 8, 9])):
        plan = plan_splice(prompt, [replace(clip, kept=np.array([5, 1, 4]), stays=stays)])
        visual = -torch.arange(1.0, 4).unsqueeze(-1)
        found, _, moved = splice(
            plan, ids, visual, Table(), mask=None, positions=torch.arange(10)[None]
        )
        assert found[0, :, 0].tolist() == [1, -2, 2, 3, -3, -1, 4]
        assert moved[0].tolist() == places
        assert plan.dropped.tolist() == [3]


def test_left_padding_is_rebuilt():
    """The first row loses 2 of 4 tokens, the second 1 of 2: one padding place is left of three."""
    ids = [[1, 9, 9, 9, 2], [0, 0, 9, 9, 3]]
    mask = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    positions = [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    out = shortened(ids, [3, 2], [1, 1], mask, positions)
    assert out == (
        [[1, -1, 2], [0, -2, 3]], [[1, 1, 1], [0, 1, 1]], [[0, 1, 2], [0, 0, 1]], [2, 1],
    )  # fmt: skip


def test_right_padding_stays_right():
    ids = [[9, 9, 9, 2, 4], [9, 9, 3, 0, 0]]
    mask = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    out = shortened(ids, [3, 2], [1, 1], mask)
    assert out == ([[-1, 2, 4], [-2, 3, 0]], [[1, 1, 1], [1, 1, 0]], None, [2, 1])


def test_rows_that_shrink_differently_are_padded_in_front():
    out = shortened([[9, 9, 2], [4, 5, 6]], [2], [1])
    assert out == ([[0, -1, 2], [4, 5, 6]], [[0, 1, 1], [1, 1, 1]], None, [1, 0])


def test_more_tokens_than_placeholders():
    """PruMerge keeping all 576 patches adds its extra token: 577."""
    out = shortened([[1, 9, 9, 2]], [2], [3], positions=[[0, 1, 2, 3]])
    assert out == ([[1, -1, -2, -3, 2]], None, [[0, 1, 2, 3, 4]], [-1])


def test_a_hole_in_the_mask_stays():
    ids, mask = [[1, 5, 9, 9, 2]], [[1, 0, 1, 1, 1]]
    out = shortened(ids, [2], [1], mask)
    assert out == ([[1, 0, -1, 2]], [[1, 0, 1, 1]], None, [1])


@given(st.data())
def test_text_survives_in_order_and_positions_count_on(data):
    rows = data.draw(st.integers(1, 3))
    pieces, counts, tokens, width = [], [], [], 0
    for _ in range(rows):
        row = []
        for _ in range(data.draw(st.integers(0, 3))):
            row += data.draw(st.lists(st.integers(1, 8), max_size=3))
            count = data.draw(st.integers(1, 4))
            counts.append(count)
            tokens.append(data.draw(st.integers(0, count)))
            row += [MARK] * count
        row += data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
        pieces.append(row)
        width = max(width, len(row))
    side = data.draw(st.sampled_from(["left", "right"]))

    def padded(values, fill):
        gap = [fill] * (width - len(values))
        return gap + values if side == "left" else values + gap

    ids = [padded(row, 0) for row in pieces]
    mask = [padded([1] * len(row), 0) for row in pieces]
    positions = [padded(list(range(len(row))), 0) for row in pieces]
    values, out_mask, out_positions, dropped = shortened(ids, counts, tokens, mask, positions)
    assert sum(dropped) == sum(counts) - sum(tokens)
    visual = iter(range(1, sum(tokens) + 1))
    images = iter(tokens)
    counted = iter(counts)
    for row, piece in enumerate(pieces):
        expected, place = [], 0
        while place < len(piece):
            if piece[place] != MARK:
                expected.append(float(piece[place]))
                place += 1
                continue
            place += next(counted)
            expected += [-float(next(visual)) for _ in range(next(images))]
        real = (
            [bool(m) for m in out_mask[row]] if out_mask is not None else [True] * len(values[row])
        )
        assert [v for v, r in zip(values[row], real, strict=True) if r] == expected
        assert [p for p, r in zip(out_positions[row], real, strict=True) if r] == list(
            range(len(expected))
        )
        # Padding stays on its side; rows that had none and shrink differently are padded in front.
        behind = side == "right" and any(len(other) < width for other in pieces)
        assert real == sorted(real, reverse=behind)
    if out_mask is not None:
        assert max(sum(row) for row in out_mask) == len(values[0])


def test_reading_a_prompt_keeps_padding_and_ids():
    prompt = read_prompt(torch.tensor([[0, 9, 1]]), torch.tensor([[0, 1, 1]]))
    assert np.array_equal(prompt.real, [[False, True, True]])
    assert np.array_equal(prompt.ids, [[0, 9, 1]])
