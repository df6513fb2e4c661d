"""DART against a slow float64 reading of the method."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hardware_specs.errors import InvalidInputError
from token_reduction.dart import dart, dart_of_embeddings


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def slow_dart(keys, hidden, keep, start, n, image_pivots, text_pivots, order) -> list[int]:
    keys, hidden = np.asarray(keys, np.float64), np.asarray(hidden, np.float64)
    norm = np.abs(keys).sum(axis=(0, 2))
    own = sorted(range(start, start + n), key=lambda j: -norm[j])[:image_pivots]
    text = sorted(range(start + n, len(hidden)), key=lambda j: -norm[j])[:text_pivots]
    turns = text + own if order == "norm" else list(set(own + text))
    kept = list(own)
    for pivot in turns:
        rest = [j for j in range(start, start + n) if j not in kept]
        rest.sort(key=lambda j: cosine(hidden[pivot], hidden[j]))
        kept += rest[: math.ceil(keep / len(turns))]
    return sorted(j - start for j in kept)


@pytest.mark.parametrize("order", ["set", "norm"])
@pytest.mark.parametrize(("keep", "pivots"), [(32, (4, 4)), (30, (4, 4)), (9, (0, 3)), (9, (3, 0))])
def test_dart_equals_the_slow_reference(draw, order, keep, pivots) -> None:
    keys, hidden = draw(3, 120, 5, seed=1), draw(120, 12, seed=2)
    image, text = pivots
    wanted = slow_dart(keys, hidden, keep, 10, 90, image, text, order)
    out = dart(
        keys,
        hidden,
        keep,
        start=10,
        image_tokens=90,
        image_pivots=image,
        text_pivots=text,
        order=order,
    )
    assert out.image_indices.tolist() == wanted
    assert out.kept_indices.tolist() == [
        *range(10),
        *(10 + j for j in wanted),
        *range(100, 120),
    ]


def test_dart_keeps_the_leading_dimension_of_one_sequence(draw) -> None:
    keys, hidden = draw(1, 3, 60, 5), draw(1, 60, 12, seed=2)
    out = dart(keys, hidden, 16, start=5, image_tokens=40)
    assert out.kept_indices.shape == (1, 16 + 4 + 20)
    with pytest.raises(InvalidInputError, match="one sequence"):
        dart(keys.repeat(2, 1, 1, 1), hidden.repeat(2, 1, 1), 16, start=5, image_tokens=40)


@pytest.mark.parametrize(
    "options", [{"text_pivots": 16}, {"image_pivots": -1}, {"image_pivots": 0, "text_pivots": 0}]
)
def test_dart_without_enough_pivots(draw, options) -> None:
    with pytest.raises(InvalidInputError, match="pivots"):
        dart(draw(3, 60, 5), draw(60, 12), 16, start=5, image_tokens=40, **options)


def test_dart_with_more_than_there_are(draw) -> None:
    with pytest.raises(InvalidInputError, match="more than the 40"):
        dart(draw(3, 60, 5), draw(60, 12), 1.0, start=5, image_tokens=40)


def slow_embedding_dart(x, keep, spans, image_pivots, text_pivots) -> list[int]:
    """Turns of an image's pivots, then the text's, each by falling norm; places in the sequence."""
    x = np.asarray(x, np.float64)
    norm = np.abs(x).sum(axis=1)
    visual = [j for start, count in spans for j in range(start, start + count)]
    text = sorted((j for j in range(len(x)) if j not in visual), key=lambda j: -norm[j])
    if isinstance(keep, float):
        shares = [math.ceil(keep * count) for _, count in spans]
    else:
        exact = [keep * count / len(visual) for _, count in spans]
        shares = [int(share) for share in exact]
        rest = sorted(range(len(spans)), key=lambda i: shares[i] - exact[i])
        for i in rest[: keep - sum(shares)]:
            shares[i] += 1
    kept = []
    for (start, count), share in zip(spans, shares, strict=True):
        image = range(start, start + count)
        own = sorted(image, key=lambda j: -norm[j])[: min(image_pivots, share)]
        here, turns = list(own), own + text[:text_pivots]
        for turn, pivot in enumerate(turns):
            each = math.ceil((share - len(here)) / (len(turns) - turn))
            rest = sorted((j for j in image if j not in here), key=lambda j: cosine(x[pivot], x[j]))
            here += rest[:each]
        kept += sorted(here)
    return kept


@pytest.mark.parametrize("spans", [[(3, 40)], [(0, 20), (25, 30), (60, 11)]])
@pytest.mark.parametrize(
    ("keep", "pivots"),
    [
        (25, (4, 4)),
        (7, (4, 2)),
        (30, (0, 3)),
        (3, (4, 0)),
        (0.75, (4, 4)),
        (0.3, (2, 1)),
        (1.0, (4, 4)),
    ],
)
def test_embeddings_equal_the_slow_reference(draw, spans, keep, pivots) -> None:
    x = draw(80, 12, seed=25)
    image, text = pivots
    out = dart_of_embeddings(x, keep, spans=spans, image_pivots=image, text_pivots=text)
    wanted = slow_embedding_dart(x, keep, spans, image, text)
    visual = [j for start, count in spans for j in range(start, start + count)]
    assert [visual[i] for i in out.image_indices.tolist()] == wanted
    counts = keep if isinstance(keep, int) else sum(math.ceil(keep * n) for _, n in spans)
    assert len(wanted) == counts
    assert out.kept_indices.tolist() == sorted({*range(80)} - {*visual} | {*wanted})


def test_embeddings_without_pivots_or_in_a_batch(draw) -> None:
    with pytest.raises(InvalidInputError, match="pivots"):
        dart_of_embeddings(draw(30, 4), 5, spans=[(0, 28)])
    with pytest.raises(InvalidInputError, match="one sequence"):
        dart_of_embeddings(draw(2, 30, 4), 5, spans=[(0, 20)])
