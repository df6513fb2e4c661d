"""docs/peers.md: the parts it names add up to what each tool was recorded to say, and ours are today's."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel import estimate

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "|" in line
]
TOOLS = ("llm-analysis", "genz-llm", "calflops", "fvcore", "vlm-roofline")


def recorded(tool: str) -> float:
    (row,) = [row for row in ROWS if row[0].startswith(tool) and row[-1] != "datasheet peaks"]
    return float(row[1].split()[0])


@pytest.mark.parametrize("tool", TOOLS)
def test_the_parts_add_up_to_what_each_tool_says(tool) -> None:
    start = next(k for k, row in enumerate(ROWS) if row[0] == "counted")
    place = ROWS[start].index(tool)
    total = 0.0
    for row in ROWS[start + 2 : start + 8]:
        cell = row[place]
        total += float(cell if cell[0].isdigit() else row[1] if cell == "yes" else 0)
    assert total == pytest.approx(recorded(tool), abs=3e-4)


def test_our_own_row_is_what_estimate_answers() -> None:
    cost = estimate(
        "llama-2-7b", "nvidia-a100-sxm4-80gb", text_tokens=616, output_tokens=64, calibration="none"
    )
    (row,) = [row for row in ROWS if row[0] == "vlm-roofline, ideal"]
    assert row[1] == f"{cost.stages['prefill'].flops / 1e12:.4f} T"
    assert row[2] == f"{cost.totals.ttft_s * 1e3:.2f} ms"
    assert row[3] == f"{cost.totals.tpot_s * 1e3:.3f} ms"
    assert row[4] == f"{cost.memory.weight_bytes / 1e9:.3f} GB"
