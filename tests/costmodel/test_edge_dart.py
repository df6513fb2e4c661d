"""A vendor's measured speed-ups of DART beside `compare`'s interval: the table of `docs/questions.md`.

Of NVIDIA's TensorRT Edge-LLM (Apache-2.0), user guide of 0.11, "Visual-Token Pruning (DART)": Qwen3-VL-4B,
FP16, one image, 1,995 tokens of prompt, of which its profile names 990 pruned at 0.5.

python tests/costmodel/test_edge_dart.py     writes the table again
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from costmodel import estimate
from costmodel.ratios import Ratio, ratio_interval

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
_TABLE = Path(__file__).parent / "data" / "edge_llm_dart.csv"
ROWS = list(csv.DictReader(_TABLE.read_text(encoding="utf-8").splitlines()))
MARK, END = "<!-- dart -->\n", "\n<!-- end -->"
#: The vendor does not say which card its x86 machine has.
DEVICES = {
    "Jetson Thor": ("nvidia-jetson-agx-thor-128gb",),
    "x86 Blackwell": ("nvidia-rtx-pro-6000-blackwell-ws", "nvidia-rtx-5090"),
}
VISUAL, TEXT = 1980, 15


@cache
def speedup(device: str, reduction: float, calibration: str | None) -> Ratio:
    """How many times faster prefill is, the selection's own time with it."""
    method = f"dart(variant=embedding, keep={1 - reduction})"
    before, after = (
        estimate(
            "qwen3-vl-4b", device, visual_tokens=VISUAL, text_tokens=TEXT, precision="fp16",
            calibration=calibration, method=one,
        )
        for one in (None, method)
    )  # fmt: skip
    return ratio_interval(before, after, "prefill_s")


def table() -> str:
    lines = [
        "| measured on | reduction | measured | device | ideal | predicted |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        reduction = float(row["reduction_ratio"])
        for device in DEVICES[row["device"]]:
            ideal, found = (speedup(device, reduction, each) for each in (None, "generic"))
            predicted = f"{found.value:.2f} ({found.low:.2f}-{found.high:.2f})"
            cells = (row["device"], row["reduction_ratio"], row["prefill_speedup"], device,
                     f"{ideal.value:.2f}", predicted)  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_is_what_the_program_says() -> None:
    written = PAGE.read_text(encoding="utf-8").partition(MARK)[2].partition(END)[0]
    assert written.strip() == table()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_the_interval_holds(row) -> None:
    """Thor's within it, or two digits of it; the unnamed card's below what any one of them reaches."""
    reduction, measured = float(row["reduction_ratio"]), float(row["prefill_speedup"])
    for device in DEVICES[row["device"]]:
        found = speedup(device, reduction, "generic")
        if row["device"] == "Jetson Thor":
            assert found.low - 0.005 <= measured <= found.high + 0.005
        else:
            assert 1.05 < found.low / measured < 1.2


def main() -> None:
    before, _, after = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(f"{before}{MARK}\n{table()}\n{END}{after.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
