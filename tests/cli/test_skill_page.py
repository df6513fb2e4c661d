"""Every line of docs/SKILL.md runs, and prints what the page says; energy and price are arithmetic."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from vlm_roofline.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "SKILL.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[" ".join(block.split()[1:3]) for block in BLOCKS])
def test_lines_run(monkeypatch, tmp_path, capsys, block: str) -> None:
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "vlm-roofline"
        code = main(arguments)
        said = capsys.readouterr()
        if "--json" in arguments:
            document = json.loads(said.out)
            assert ("error" in document) == (code == 2)
        assert code == (2 if "h1000" in line else 0), said.err


def test_a_thousand_requests(capsys) -> None:
    """A batch of 4: 250 batches; price = 250 t x 0.8 / 3600."""
    given = ["estimate", "llava-1.5-7b", "-d", "l4", "--batch-size", "4", "--json"]
    assert main([*given, "--price-per-hour", "0.8"]) == 0
    document = json.loads(capsys.readouterr().out)
    found, totals = document["per_thousand_requests"], document["totals"]
    assert found["device_s"] == pytest.approx(250 * totals["time_s"])
    assert found["price"] == pytest.approx(250 * totals["time_s"] * 0.8 / 3600)
    assert found["energy_j"] is None
    # 72 W is the L4's limit.
    assert found["energy_high_j"] == pytest.approx(250 * totals["time_high_s"] * 72, rel=0.2)
    assert main([*given, "--idle-w", "16", "--memory-w", "60", "--compute-w", "70"]) == 0
    found = json.loads(capsys.readouterr().out)["per_thousand_requests"]
    assert 250 * totals["time_s"] * 16 < found["energy_j"] < 250 * totals["time_s"] * 72
    assert main([*given[:-1], "--price-per-hour", "-1"]) == 2
