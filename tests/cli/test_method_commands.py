"""`vlm-roofline methods` and `vlm-roofline frontier`."""

import json

import pytest

from costmodel.methods import list_methods
from vlm_roofline.cli import main

A100 = "nvidia-a100-sxm4-80gb"


@pytest.fixture
def run(capsys):
    def call(*arguments):
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return call


def test_list(run) -> None:
    text = run("methods", "list")
    for name in list_methods():
        assert name in text
    document = json.loads(run("methods", "list", "--json"))
    assert [entry["name"] for entry in document["methods"]] == list(list_methods())
    assert all(entry["options"] is not None for entry in document["methods"])


@pytest.mark.parametrize("name", list_methods())
def test_show(run, name) -> None:
    document = json.loads(run("methods", "show", name, "--json"))
    assert document["name"] == name
    assert document["source"]
    assert document["example"]["flops"] < document["example"]["flops_without"]
    text = run("methods", "show", name)
    assert document["place"] in text


def test_frontier_text(run) -> None:
    line = ("frontier", "llava-1.5-7b", "-d", A100, "--benchmark", "pope", "--calibration", "none")
    text = run(*line, "--latency-ms", "10")
    assert "best: cdpruner" in text
    assert "? one table, of a rival or a benchmark: never the best" in text
    none = run(*line, "--latency-ms", "0.1")
    assert "nothing published fits the budget" in none


def test_frontier_json_and_picture(run, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    arguments = ("frontier", "llava-1.5-7b", "-d", A100, "--benchmark", "mme")
    document = json.loads(run(*arguments, "--json", "--plot", str(picture)))
    assert document["benchmark"]["name"] == "mme"
    assert picture.exists()


def test_frontier_tells_without_colour_what_is_over_the_budget(run) -> None:
    arguments = ("frontier", "llava-1.5-7b", "-d", A100, "--benchmark", "textvqa")
    text = run(*arguments, "--latency-ms", "9")
    over = [line for line in text.splitlines() if "LLaVA-1.5 " in line or "ATS 25 %" in line]
    assert len(over) == 2
    assert all("x" in line.split()[0] for line in over)
    assert "x over the budget" in text
    assert "N2 read in two public notes" in text
    free = run(*arguments)
    assert not any(line.startswith(("x", "*x")) for line in free.splitlines())
