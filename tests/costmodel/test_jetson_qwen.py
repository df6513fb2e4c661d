"""Published times of Qwen's families on Jetsons: the table of `docs/families.md` is made here and compared.

python tests/costmodel/test_jetson_qwen.py     writes it again
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from costmodel import estimate

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
_TABLE = Path(__file__).parent / "data" / "jetson_qwen_vl.csv"
ROWS = list(csv.DictReader(_TABLE.read_text(encoding="utf-8").splitlines()))
MARK, END = "<!-- jetson -->\n", "\n<!-- end -->"
#: As their libraries have them; the guide of TensorRT Edge-LLM makes the head NVFP4 where the layers are.
PRECISIONS = {"awq": "awq", "nvfp4": "text=nvfp4,lm_head=nvfp4"}
#: Text tokens of a prompt whose length was not published, and tokens of its answer.
TEXT, ANSWER = 24, 64


@cache
def ratios(number: int, calibration: str | None) -> dict[str, float]:
    """Predicted over measured of a row: seconds of tower and prefill, tokens a second of decoding."""
    row = ROWS[number]
    batch, visual = int(row["batch"]), int(row["visual_tokens"])
    cost = estimate(
        row["model"], row["device"], visual_tokens=visual,
        text_tokens=int(row["prefill_tokens"] or visual + TEXT) - visual, output_tokens=ANSWER,
        precision=PRECISIONS[row["precision"]], batch_size=batch, calibration=calibration,
    )  # fmt: skip
    assert cost.totals.tpot_s is not None
    predicted = {
        "vision_s": cost.stages["vision"].time_s + cost.stages["projector"].time_s,
        "prefill_s": cost.stages["prefill"].time_s,
        "decode_tokens_per_s": batch / cost.totals.tpot_s,
    }
    return {key: value / float(row[key]) for key, value in predicted.items() if row[key]}


def table() -> str:
    lines = [
        "| release | device | model | precision | batch | tower | prefill | decode speed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(ROWS):
        ideal, generic = ratios(number, None), ratios(number, "generic")
        said = [
            f"{ideal[key]:.2f}, {generic[key]:.2f}" if key in ideal else "-"
            for key in ("vision_s", "prefill_s", "decode_tokens_per_s")
        ]
        device = row["device"].removeprefix("nvidia-jetson-")
        cells = (row["release"], device, row["model"], row["precision"], row["batch"], *said)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_is_what_the_program_says() -> None:
    written = PAGE.read_text(encoding="utf-8").partition(MARK)[2].partition(END)[0]
    assert written.strip() == table()


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_the_ideal_is_never_slower_than_what_was_measured(number: int) -> None:
    ideal = ratios(number, None)
    assert ideal["vision_s"] < 1
    assert ideal.get("prefill_s", 0) < 1
    assert ideal.get("decode_tokens_per_s", 2) > 1


@pytest.mark.parametrize("number", [n for n, row in enumerate(ROWS) if row["batch"] == "1"])
def test_one_sequence_is_within_what_the_page_says(number: int) -> None:
    row, found = ROWS[number], ratios(number, "generic")
    if "thor" not in row["device"]:
        assert 1 < found["vision_s"] < 1.26
    assert 0.71 < found["vision_s"] < 1.44
    slow = (row["release"], row["precision"]) == ("v0.8.0", "nvfp4")
    assert 0.87 < found.get("decode_tokens_per_s", 1) < (1.51 if slow else 1.17)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(MARK)
    PAGE.write_text(f"{before}{MARK}\n{table()}\n{END}{after.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
