"""`estimate --markdown`: what a model card prints is what `estimate` answers, as its command does again."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from vlm_roofline.cli import main
from vlm_roofline.cli.units import show_bytes, show_flops, show_time

LINES = (
    "llava-1.5-7b -d nvidia-a100-sxm4-80gb --output-tokens 64",
    "qwen2.5-vl-7b -d nvidia-l40s --image-size 480x640 --execution hf-eager --host-us 5",
    "llava-1.5-7b -d nvidia-h100-sxm5-80gb --method fastv --option layer=3 --keep 25% --batch-size 8",
    "llava-1.5-7b -d nvidia-l4 --tokens-per-layer 576x2,64x30 --calibration none",
)


@pytest.mark.parametrize("line", LINES)
def test_the_table_says_what_the_command_beside_it_answers(line, capsys) -> None:
    assert main(["estimate", *shlex.split(line), "--markdown"]) == 0
    text = capsys.readouterr().out
    command = re.search(r"`(vlm-roofline .*)`", text)
    assert command is not None
    assert main([*shlex.split(command[1])[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cells = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in text.split("\n") if "|" in row
    ]
    table = {row[0]: row[1:] for row in cells}
    assert table["time to the first token"][0] == show_time(found["totals"]["ttft_s"])
    assert table["peak memory"][0] == show_bytes(found["memory"]["peak_memory_bytes"])
    assert table["FLOPs"][0] == show_flops(found["totals"]["flops"])
    if found["inputs"]["output_tokens"]:
        assert table["time per output token"][0] == show_time(found["totals"]["tpot_s"])
    else:
        assert table["time to the first token"][1] == show_time(found["totals"]["time_low_s"])
    assert "not measured" in text
    assert main(["estimate", *shlex.split(line), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"] == found["totals"]


def test_another_convention_has_no_card(capsys) -> None:
    line = "estimate llava-1.5-7b -d a100 --convention fastv --markdown"
    assert main(line.split()) == 2
    assert "--convention" in capsys.readouterr().err
