"""Every number of README comes from somewhere: a run of today, or a page that says how it was found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.methods import list_methods
from costmodel.models import list_models
from hardware_specs import list_hardware
from profiling.records.measurement import TOTAL
from profiling.records.storage import read_measurements
from vlm_roofline.cli import main

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = " ".join(README.split())
WORDS = {20: "twenty", 21: "twenty-one", 22: "twenty-two", 23: "twenty-three", 24: "twenty-four",
         25: "twenty-five", 26: "twenty-six", 27: "twenty-seven", 28: "twenty-eight",
         29: "twenty-nine", 30: "thirty", 31: "thirty-one", 32: "thirty-two", 33: "thirty-three",
         34: "thirty-four", 35: "thirty-five", 36: "thirty-six"}  # fmt: skip


def test_the_printed_estimate_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = re.search(r"```console\n\$ vlm-roofline (.*?)\n(.*?)```", README, re.DOTALL)
    assert block is not None
    monkeypatch.setenv("COLUMNS", "160")
    assert main(block[1].split()) == 0
    said = [line.rstrip() for line in capsys.readouterr().out.strip().splitlines()]
    assert said == [line.rstrip() for line in block[2].strip().splitlines()]


def test_what_there_is_is_counted() -> None:
    assert f"{len(list_models())} shipped" in PROSE
    assert f"any of {WORDS[len(list_methods())]} token-reduction methods" in PROSE
    assert f"any of {len(list_hardware())} devices" in PROSE


def test_pages_hold_what_readme_quotes() -> None:
    """Averages of the tile law's tables and of what is measured stand on their pages."""
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    rows = {
        (cells[1], cells[2]): cells
        for line in page.split("Generic tier:")[1].split("What each term buys")[0].splitlines()
        if len(cells := [cell.strip() for cell in line.split("|")]) > 8
    }
    fitted = [rows[card, "bf16"][8].split()[0] for card in ("A100", "H100")]
    sheet = [round(float(rows[card, "bf16"][4])) for card in ("A100", "H100")]
    assert f"within {fitted[0]} % (A100) and {fitted[1]} % (H100)" in PROSE
    assert f"the datasheet roofline is {sheet[0]} and {sheet[1]} % off" in PROSE


def test_table_2_holds_in_so_many_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "prumerge-table2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["summary"]
    assert f"{found['printed_digits_reproduced']} of {found['cells']} cells" in PROSE


def test_the_measured_run_is_what_its_records_say() -> None:
    many, few = sorted(
        read_measurements(ROOT / "measurements" / "amd-epyc-2026-11-20" / "seven-b.jsonl"),
        key=lambda record: -record.configuration.visual_tokens,
    )
    work = [record.stages[TOTAL].flops or 0 for record in (many, few)]
    times = [record.stages[TOTAL].median_s for record in (many, few)]
    assert f"{work[0] / 1e12:.2f} TFLOP in {times[0]:.1f} s at 576 visual tokens" in PROSE
    assert f"{work[1] / 1e12:.2f} TFLOP in {times[1]:.1f} s at 64" in PROSE
    assert f"{work[0] / work[1]:.1f} times fewer FLOPs" in PROSE
    assert f"{times[0] / times[1]:.1f} times less time" in PROSE
