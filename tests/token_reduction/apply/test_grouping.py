"""Which crops make one image: as the caller says, or as a prompt does that a processor laid out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from merging_families import tiny_model, write_config
from methods_on_families import OnFamily

from costmodel.models.families import get_family
from hardware_specs.errors import InvalidInputError
from token_reduction import get_method, reduce_tokens
from token_reduction.apply.grouping import checked_grouping, crops_in
from token_reduction.apply.llm_policy import images_of
from token_reduction.apply.splice import Prompt

if TYPE_CHECKING:
    from pathlib import Path

#: A placeholder, what stands around each crop, a name of a tile each, that of the overview, end of a row.
IMAGE, FAKE, TILE, OVERVIEW, NEWLINE = 120, 5, 6, 7, 8
EACH = 16


def _tiled(*grid: int) -> list[int]:
    """The ids of an image of (rows, columns) tiles as SmolVLM's processor has them; none for a whole one."""
    ids: list[int] = []
    rows, columns = grid or (0, 0)
    for row in range(rows):
        for column in range(columns):
            ids += [FAKE, TILE + 10 * (1 + row * columns + column), *[IMAGE] * EACH]
        ids.append(NEWLINE)
    return [*ids, *[NEWLINE] * bool(rows), FAKE, OVERVIEW, *[IMAGE] * EACH, FAKE]


def _prompt(*rows: list[int]) -> Prompt:
    width = max(map(len, rows))
    ids = np.array([[*[0] * (width - len(row)), *row] for row in rows])
    return Prompt(ids, ids != 0)


def test_a_processor_puts_the_overview_last() -> None:
    first = [1, *_tiled(2, 2), 3, 4, *_tiled(), *_tiled(1, 3), 9]
    assert crops_in(_prompt(first, [2, *_tiled(3, 1)]), IMAGE, 14, EACH, "overview last") == [
        5,
        1,
        4,
        4,
    ]


def test_without_such_marks_a_run_is_an_image() -> None:
    plain = [1, 3, *[IMAGE] * EACH, 3, *[IMAGE] * 2 * EACH, 9]
    for layout in ("overview last", "in a row"):
        assert crops_in(_prompt(plain), IMAGE, 3, EACH, layout) == [1, 2]
    assert crops_in(_prompt(plain), IMAGE, 3, EACH, "apart") == [1, 1, 1]
    with pytest.raises(InvalidInputError, match=r"runs of \[8\] image placeholders"):
        crops_in(_prompt([1, *[IMAGE] * 8, 2]), IMAGE, 1, EACH, "in a row")


@pytest.mark.parametrize("kind", ["smolvlm", "idefics3"])
def test_keep_counts_tokens_of_each_image(kind: str) -> None:
    """Two prompts, the second padded: with fewer tiles, whose place among the pixels stays empty."""
    rows = [[1, *_tiled(1, 2), 4, *_tiled(), 9], [2, *_tiled(1, 2), 9]]
    prompt = _prompt(*rows)
    pixels = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels[1, 3] = 0
    given: dict[str, Any] = {"input_ids": torch.from_numpy(prompt.ids), "pixel_values": pixels}
    given["attention_mask"] = torch.from_numpy(prompt.real).long()
    model = tiny_model(kind)
    seen = []
    for crops in (None, (3, 1, 3)):
        with (
            torch.no_grad(),
            reduce_tokens(model, get_method("divprune", keep=5), crops=crops) as record,
        ):
            model(**given)
        seen.append((record.tokens_before, record.tokens_after))
    assert seen == [([3 * EACH, EACH, 3 * EACH], [5, 5, 5])] * 2


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("cdpruner(variant=split, keep=4)", 16),  # of each frame
        ("evs(keep=0.5)/cdpruner(variant=split, keep=4)", 4),  # of what EVS left of the clip
        ("evs(keep=0.5)/dart(variant=embedding, keep=0.3)", 10),
    ],
)
def test_what_is_left_of_a_clip_is_one_piece_whatever_text_is_in_it(line: str, left: int) -> None:
    frames = [each for frame in range(4) for each in (10 + frame, 5, *[IMAGE] * EACH, 6)]
    given = {
        "input_ids": torch.tensor([[1, *frames, 7, 8]]),
        "pixel_values": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    }
    model = tiny_model("internvl")
    with torch.no_grad(), reduce_tokens(model, line, frames=4) as record:
        model(**given)
    assert record.visual_tokens == (4 * EACH, left)


def test_pieces_with_text_inside_keep_what_they_keep_without_it() -> None:
    """Text that moves in front of a clip changes neither the tokens that are compared nor their order."""
    tokens = torch.randn(4 * EACH, 64, generator=torch.Generator().manual_seed(1))
    states = torch.cat((tokens[:EACH], torch.ones(1, 64), tokens[EACH:]))
    marks = np.delete(np.arange(4 * EACH + 1), EACH)
    now: Any = SimpleNamespace(
        visual_places=[marks], pieces=[np.zeros(4 * EACH, dtype=int)],
        tokens=SimpleNamespace(span=lambda _: slice(None)),
        whole=SimpleNamespace(span=lambda _: slice(0, None)),
    )  # fmt: skip
    found, spans = images_of(now, 0, states[None])
    ((start, count),) = spans
    assert torch.equal(found[start : start + count], tokens)
    assert torch.equal(found[:start], torch.ones(1, 64))


def test_what_is_said_of_crops_is_checked() -> None:
    smolvlm, llava = get_family("smolvlm"), get_family("llava")
    assert checked_grouping(smolvlm, None, [2, 1]).crops == (2, 1)
    assert checked_grouping(smolvlm, None, np.int64(2)).crops == 2
    assert checked_grouping(smolvlm, np.int64(8), None).frames == 8
    for crops in (0, True, 2.5, "3", b"12", (), [2, 0], object()):
        with pytest.raises(InvalidInputError, match="must be the crops of every image"):
            checked_grouping(smolvlm, None, crops)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="LLaVA says itself which pixels are an image's"):
        checked_grouping(llava, None, 2)
    with pytest.raises(InvalidInputError, match="leave one out"):
        checked_grouping(smolvlm, 2, 2)
    model, pixels = tiny_model("internvl"), torch.zeros(3, 3, 32, 32)
    ids = torch.tensor([[1, *[IMAGE] * 3 * EACH, 2]])
    with (
        pytest.raises(InvalidInputError, match="brings 3 crops"),
        reduce_tokens(model, "divprune", crops=2),
    ):
        model(input_ids=ids, pixel_values=pixels)


#: What they act on: images, what stands by itself in a prompt, all of a sample.
METHODS = (
    "divprune",
    "cdpruner(variant=split)",
    "dart(variant=embedding)",
    "dart(variant=embedding,keep=0.3)",
    "random",
    "fastv(layer=1)",
)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("smolvlm", ((32, 32), (32, 96))),
        ("internvl", ((32, 32), (32, 32))),
        ("gemma3", ((32, 32), (32, 96))),
        ("qwen2_5_vl", ((24, 40), (24, 48))),
        ("qwen3_vl", ((24, 40), (24, 56))),
    ],
)
def test_images_of_several_sizes_are_counted_as_priced(
    kind: str, sizes: tuple[tuple[int, int], ...], tmp_path: Path
) -> None:
    on = OnFamily(write_config(kind, tmp_path), {"image_size": sizes})
    for method in (*METHODS, *(("downsample", "visionzip") if kind.startswith("qwen") else ())):
        stages = on.counted(method)
        assert stages is not None, method
        assert all(ours == torchs for ours, torchs in stages.values()), (method, stages)
