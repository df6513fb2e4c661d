"""The options made of the fields of a request: as they were when every command declared its own."""

from __future__ import annotations

import json

import pytest
import typer

from costmodel import estimate
from vlm_roofline.cli import build_app, main

A100 = "nvidia-a100-sxm4-80gb"
#: Option -> its default, by command; what a person may have in a script.
_ESTIMATE = {
    "--visual-tokens": None, "--text-tokens": None, "--batch-size": 1, "--output-tokens": 0,
    "--precision": "auto", "--method": None, "--keep": None, "--layer": None,
    "--execution": "fused", "--calibration": "auto", "--convention": "torch", "--attention": None,
    "--logits": "last", "--image-size": None, "--frames": None, "--vision-layers": "executed",
    "--ops": False, "--json": False, "--host-us": None,
}  # fmt: skip
_SHARED = {"--text-tokens": None, "--batch-size": 1, "--precision": "auto", "--calibration": "auto",
           "--json": False}  # fmt: skip
_BUDGETS = {"--latency-ms": None, "--memory-gb": None}
_ONE = {"--visual-tokens": None, "--output-tokens": 0, "--method": None, "--keep": None}
OPTIONS = {
    "estimate": _ESTIMATE,
    "sweep": {
        "--out": None, "--visual-tokens": None, "--text-tokens": None, "--batch-size": "1",
        "--output-tokens": "0", "--precision": "auto", "--method": "none", "--keep": None,
        "--layer": None, "--execution": "fused", "--calibration": "auto", "--attention": "flash",
        "--logits": "last", "--image-size": None, "--frames": None, "--vision-layers": "executed",
        "--stage-columns": False, "--errors": "raise", "--json": False,
    },
    "break-even": {**_SHARED, **_BUDGETS, "--most": None, "--method": None, "--keep": None,
                   "--execution": "fused"},
    "frontier": {**_SHARED, **_BUDGETS, "--benchmark": None, "--rank": "retained",
                 "--training-free": False, "--output-tokens": 0, "--execution": "fused",
                 "--plot": None},
    "plot roofline": {**_SHARED, **_ONE, "--execution": "fused", "--out": None},
    "plot latency": {**_SHARED, "--most": None, "--stage": "total",
                     "--execution": "hf-eager,fused", "--out": None},
    "plot memory": {**_SHARED, **_ONE, "--execution": "hf-eager", "--out": None},
}  # fmt: skip
del OPTIONS["plot memory"]["--calibration"]


def test_every_option_keeps_its_name_and_default() -> None:
    app = typer.main.get_command(build_app([]))
    for line, expected in OPTIONS.items():
        command = app
        for word in line.split():
            command = command.commands[word]
        found = {option: each for each in command.params for option in each.opts}
        assert {option: found[option].default for option in expected} == expected, line
        assert found["--hardware"].required
        assert "-d" in found["--hardware"].opts
        assert all(each.help for each in command.params), line


def test_values_arrive_in_the_kind_of_their_argument(capsys) -> None:
    line = (
        "estimate llava-next-vicuna-7b -d " + A100 + " --image-size 480x640 --method fastv "
        "--keep 0.25 --layer 3 --batch-size 2 --logits all --json"
    )
    assert main(line.split()) == 0
    inputs = json.loads(capsys.readouterr().out)["inputs"]
    assert inputs["image_size"] == [480, 640]
    assert (inputs["keep"], inputs["layer"], inputs["logits"]) == (0.25, 3, "all")
    assert inputs["batch_size"] == 2


def test_a_sweep_takes_several_values_of_every_kind(capsys) -> None:
    line = (
        "sweep llava-1.5-7b -d "
        + A100
        + ",nvidia-l4 --method none,fastv --keep 0.5,64 --layer 2:3 "
        "--logits last,all --visual-tokens 576,144 --json"
    )
    assert main(line.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    # Devices x (unreduced + keep x layer) x logits x visual tokens.
    assert len(rows) == 2 * (1 + 2 * 2) * 2 * 2


@pytest.mark.parametrize("text", ["576x2,288x30", str([576] * 2 + [288] * 30)])
def test_a_schedule_of_ones_own(text: str, capsys) -> None:
    line = ["estimate", "llava-1.5-7b", "-d", A100, "--json", "--tokens-per-layer", text]
    assert main(line) == 0
    document = json.loads(capsys.readouterr().out)
    schedule = [576] * 2 + [288] * 30
    assert document["inputs"]["tokens_per_layer"] == schedule
    cost = estimate("llava-1.5-7b", A100, tokens_per_layer=schedule)
    assert document["totals"]["flops"] == cost.totals.flops
    assert main(["sweep", "llava-1.5-7b", "-d", A100, "--json", "--tokens-per-layer", text]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["flops"] == cost.totals.flops


@pytest.mark.parametrize(
    "text", ["576", "576x", "x32", "576x2;288x30", "-1x32", "576x99999", "many"]
)
def test_a_schedule_that_is_none(text: str, capsys) -> None:
    assert main(["estimate", "llava-1.5-7b", "-d", A100, f"--tokens-per-layer={text}"]) == 2
    assert "tokens" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["estimate", "sweep", "compare"])
def test_a_methods_variant_and_options_arrive(command: str, capsys) -> None:
    """Merging 8 of 576 patches a layer leaves more than merging 13, the default."""
    line = [command, "llava-1.5-7b", "-d", A100, "--method", "tome", "--json"]
    found = []
    for settings in ((), ("--option", "r=8")):
        assert main([*line, *settings]) == 0
        document = json.loads(capsys.readouterr().out)
        row = document["totals"] if command == "estimate" else document["rows"][-1]
        found.append(row["mean_visual_tokens" if command == "compare" else "flops"])
    assert found[0] < found[1]


def test_settings_go_to_the_methods_that_take_them(capsys) -> None:
    line = "compare llava-1.5-7b -d " + A100 + " --json --option r=8 --variant paper --method"
    assert main([*line.split(), "fastv,tome,evit(layers=[2,5])"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in rows] == [
        "none", "fastv(variant=paper)", "tome(r=8)", "evit(layers=[2,5])",
    ]  # fmt: skip


@pytest.mark.parametrize(("settings", "said"), [
    (("--option", "proportionl=true"), "did you mean proportional"),
    (("--variant", "papr"), "unknown variant of tome 'papr'"),
    (("--option", "r"), "not NAME=VALUE"),
    (("--method", "tome(r=8)", "--option", "r=9"), "given twice"),
    (("--method", "none", "--option", "r=9"), "give --method"),
])  # fmt: skip
def test_settings_that_are_none(settings: tuple[str, ...], said: str, capsys) -> None:
    assert main(["estimate", "llava-1.5-7b", "-d", A100, "--method", "tome", *settings]) == 2
    assert said in capsys.readouterr().err
