"""What a first-time user types: aliases, any case, percent, help, errors, completion."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from public_traces import TRACES

from vlm_roofline.cli import COMMANDS, main
from vlm_roofline.cli.examples import EXAMPLES

#: Commands whose examples need a GPU, minutes, or files of the user's.
LONG = (
    "audit",
    "generate",
    "profile",
    "count",
    "calibrate",
    "reconcile",
    "report",
    "import",
    "loop",
    "campaign",
    "measurements",
    "specs detect",
    "plot sweep",
)


@pytest.mark.parametrize(("typed", "taken"), [
    ("h100", "nvidia-h100-sxm5-80gb"), ("A100", "nvidia-a100-sxm4-80gb"), ("l40s", "nvidia-l40s"),
    ("V100", "nvidia-v100-sxm2-16gb"),
])  # fmt: skip
def test_usual_devices(capsys, typed: str, taken: str) -> None:
    assert main(["estimate", "LLaVA-1.5-7B", "-d", typed, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["inputs"]["hardware"] == taken
    assert any(f"is taken as {taken}" in line for line in document["warnings"])


def test_case_and_percent(capsys) -> None:
    plain = ["estimate", "llava-next-vicuna-13b", "-d", "nvidia-l40s", "--json", "--method", "fastv",
             "--keep", "0.5", "--precision", "fp16", "--execution", "hf-eager"]  # fmt: skip
    other = ["estimate", "LLaVA-NeXT-13B", "-d", "NVIDIA-L40S", "--json", "--method", "FastV",
             "--keep", "50%", "--precision", "FP16", "--execution", "HF-Eager"]  # fmt: skip
    documents = []
    for arguments in (plain, other):
        assert main(arguments) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0] == documents[1]


def test_sweep_takes_methods_in_any_case(capsys) -> None:
    assert (
        main(["sweep", "llava-1.5-7b", "-d", "l4", "--method", "None,DivPrune", "--keep", "10%"])
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3


@pytest.mark.parametrize("arguments", [
    ["estimate", "llava-1.5-7b", "-d", "b300-nvl99", "--json"],
    ["estimate", "llava-1.5-7b", "--json"],
    ["sweep", "llava-1.5-7b", "-d", "l4", "--frobnicate", "--json"],
    ["frontier", "llava-1.5-7b", "-d", "l4", "--benchmark", "popo", "--json"],
])  # fmt: skip
def test_errors_are_json_where_json_was_asked_for(capsys, arguments: list[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    assert shown.err == f"error: {error['message']}\n"
    assert main(arguments[:-1]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1


def test_frontier_shows_what_it_has(capsys) -> None:
    assert main(["frontier", "llava-1.5-7b", "-d", "l4"]) == 0
    assert "pope" in capsys.readouterr().out
    assert main(["frontier", "smolvlm2-256m", "-d", "l4"]) == 0
    out = capsys.readouterr().out
    assert "no published scores of smolvlm2-256m" in out
    assert "llava-1.5-7b" in out
    assert main(["frontier", "llava-1.5-7b", "-d", "l4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmarks"][0]["rows"] > 0


@pytest.mark.parametrize(("line", "said"), [
    ("frontier llava-1.5-7b -d l4 --plot x.png", "--plot needs --benchmark"),
    ("frontier llava-1.5-7b -d l4 --latency-ms 9", "--latency-ms needs --benchmark"),
    ("frontier llava-1.5-7b -d l4 --rank score", "--rank needs --benchmark"),
    ("frontier llava-1.5-7b -d l4 --training-free", "--training-free needs --benchmark"),
    ("frontier llava-1.5-7b -d l4 --precision fp16", "--precision needs --benchmark"),
    ("serve llava-1.5-7b -d l4 --memory-gb 40 --memory-margin-bytes 5", "leave out one"),
    ("break-even llava-1.5-7b -d l4 --memory-gb 40 --memory-margin-bytes 5", "leave out one"),
    ("frontier llava-1.5-7b -d l4 --benchmark pope --memory-gb 40 --memory-margin-bytes 5", "leave out one"),
    ("profile llava-1.5-7b --device cuda --threads 2", "--threads are those of a CPU"),
    ("profile llava-1.5-7b --device cuda --max-foreign-load 2", "--max-foreign-load is watched on a CPU"),
    ("loop --out x --device cpu --method= --keep 3", "--method names none"),
    ("audit fastv --column x=flops", "--column is for a file or a text"),
    ("audit fastv --model llava-1.5-7b", "--model is for a file or a text"),
    ("audit fastv -d nowhere", "unknown hardware 'nowhere'"),
    ("sweep llava-1.5-7b -d l4 --parts x --out x.csv", "leave out --out"),
    ("estimate llava-1.5-7b -d l4 --markdown --ops", "--markdown prints one table"),
    ("estimate llava-1.5-7b -d l4 --markdown --energy", "--markdown prints one table"),
    ("calibrate x.csv -d l4 --out x.json --keep-table y.json", "--keep-table is for ops"),
    ("calibrate --device cpu --out x.json --time-unit us", "read from tables"),
])  # fmt: skip
def test_options_that_nothing_would_read_are_refused(
    refused, tmp_path, monkeypatch, line: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(*line.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("line", "said"), [
    ("break-even llava-1.5-7b -d l4 --latency-ms -1", "--latency-ms must be a finite number above 0, not -1"),
    ("break-even llava-1.5-7b -d l4 --memory-gb=0", "--memory-gb must be a finite number above 0, not 0"),
    ("frontier llava-1.5-7b -d l4 --benchmark pope --latency-ms nan", "--latency-ms must be a finite "
     "number above 0, not nan"),
    ("serve llava-1.5-7b -d l4 --step-ms -1", "--step-ms must be a number from 0 to 60000, not -1"),
    ("serve llava-1.5-7b -d l4 --rate 0", "--rate must be a finite number above 0, not 0"),
    ("estimate llava-1.5-7b -d l4 --host-us 1e5", "--host-us must be a number from 0 to 10000, not 1e5"),
    ("sweep llava-1.5-7b -d l4 --host-us 3,-2", "--host-us must be a number from 0 to 10000, not -2"),
    ("estimate llava-1.5-7b -d l4 --method fastv --keep 150%", "--keep must be a count (an int from 1) or "
     "a ratio (a float in (0, 1]), not 150%"),
    ("estimate llava-1.5-7b -d l4 --tp 0", "--tp must be a whole number from 1 to 100000000, not 0"),
    ("estimate llava-1.5-7b -d l4 --logits some", "--logits='some' is unknown; there is: last, all"),
    ("profile llava-1.5-7b --seed -1", "--seed must be a whole number from 0 to 9223372036854775807, not -1"),
    ("profile llava-1.5-7b --device cpu --threads 0", "--threads must be a whole number from 1 to "
     "4096, not 0"),
    ("profile llava-1.5-7b --noise -1", "--noise must be a share such as 0.02, not -1"),
    ("profile llava-1.5-7b --rounds 0", "--rounds must be a whole number from 1 to 10000, not 0"),
    ("profile llava-1.5-7b --device cpu --gpus 1 --out x", "--gpus and --device-name choose hosts of a "
     "cluster; give --engine ray, or neither"),
    ("sweep llava-1.5-7b -d l4 --top 0", "--top must be a whole number from 1 to 20000, not 0"),
    ("sweep llava-1.5-7b -d l4 --pareto time_s", "--pareto 'time_s' is not two columns or more; for one "
     "there is --top, with --by"),
    ("sweep llava-1.5-7b -d l4 --top 1 --workers 0", "--workers must be a whole number from 1 to 1024, "
     "not 0"),
    ("campaign smoke --out x --budget 0", "--budget must be positive and finite, not 0"),
])  # fmt: skip
def test_errors_are_in_the_words_and_units_of_the_command_line(
    refused, line: str, said: str
) -> None:
    assert refused(*line.split()) == f"error: {said}"


def test_what_is_listed_keeps_its_names(refused) -> None:
    error = refused("sweep", "llava-1.5-7b", "-d", "l4", "--top", "1", "--by", "zzz")
    assert " visual_tokens, " in error


def test_empty_paths_are_refused_by_the_name_of_their_option() -> None:
    """Python takes an empty path for the current folder; every path of every command is asked."""
    import typer

    from vlm_roofline.cli import build_app

    def commands(app):
        yield from (each.callback for each in app.registered_commands)
        for group in app.registered_groups:
            yield from commands(group.typer_instance)

    paths = 0
    for callback in commands(build_app([])):
        for each in inspect.signature(callback, eval_str=True).parameters.values():
            if "Path" not in str(each.annotation):
                continue
            (declared,) = each.annotation.__metadata__
            paths += 1
            with pytest.raises(typer.BadParameter, match="empty path"):
                declared.parser("")
    assert paths > 25


@pytest.mark.parametrize(("line", "option"), [
    ("audit", "TABLE"), ("explain", "TRACE"), ("calibrate -d l4 --out x.json", "TABLE"),
    ("sweep llava-1.5-7b -d l4 --out", "--out"), ("explain x.json --plot", "--plot"),
    ("measurements runs --share", "--share"), ("profile --plan", "--plan"), ("specs detect --out", "--out"),
])  # fmt: skip
def test_an_empty_path(refused, line: str, option: str) -> None:
    assert f"'{option}': an empty path names no file" in refused(*line.split(), "")


@pytest.mark.parametrize(("line", "said"), [
    ("compare llava-1.5-7b -d l4 --method fastv --format csv", "two formats"),
    ("reconcile x --stage prefill", "--json has every stage"),
])  # fmt: skip
def test_options_that_a_document_leaves_unread_are_refused(capsys, line: str, said: str) -> None:
    assert main([*line.split(), "--json"]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]["message"]


def test_help_of_the_program(capsys) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--version" in out
    assert "--install-completion" in out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vlm-roofline ")


def _commands() -> list[str]:
    groups = {"plot": ("roofline", "latency", "memory", "sweep", "timeline"), "models": ("list", "show"),
              "specs": ("list", "show", "detect"), "methods": ("list", "show")}  # fmt: skip
    return [
        f"{command} {name}".strip() for command in COMMANDS for name in groups.get(command, ("",))
    ]


@pytest.mark.parametrize("command", ["", "plot", "models", "specs", "methods", *_commands()])
def test_help_at_eighty_columns(monkeypatch, capsys, command: str) -> None:
    """No box, no word cut, no line too long; what every command does and its examples stand whole."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert not set(out) & set("\u2026\u2500\u2502\u256d")
    assert not re.search(r"[a-z]\.\.\.", out)
    assert not re.search(r"--\w.*list\[", out)
    said = " ".join(out.replace("\\\n", "").split())
    for line in EXAMPLES.get(command, ()):
        assert f"vlm-roofline {line}" in said
    if command in _commands():
        assert EXAMPLES[command]


@pytest.mark.parametrize(
    "line", [line for name, lines in EXAMPLES.items() if name not in LONG for line in lines]
)
def test_examples_run(monkeypatch, tmp_path, capsys, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    for word in line.split():
        # Of the files that a user brings only traces are carried with the tests.
        if word.endswith(".json.gz"):
            shutil.copy(TRACES["h100_vit_b16"], word)
    assert main(line.split()) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("typed", "offered"), [
    ("comp", {"compare"}),
    ("estimate llava-1.5-", {"llava-1.5-7b", "llava-1.5-13b"}),
    ("estimate llava-1.5-7b -d nvidia-h100-s", {"nvidia-h100-sxm5-80gb"}),
    ("compare llava-1.5-7b -d h100,l40", {"h100,l40s"}),
    ("compare llava-1.5-7b --method fastv,divp", {"fastv,divprune"}),
    ("sweep llava-1.5-7b --precision w4a", {"w4a16", "w4a4"}),
    ("sweep llava-1.5-7b --execution cu", {"cuda-graph"}),
    ("profile llava-1.5-7b --method vtw", {"vtw"}),
    ("methods show hi", {"hired"}),
    ("specs show l40", {"l40s"}),
])  # fmt: skip
def test_completion(monkeypatch, capsys, typed: str, offered: set[str]) -> None:
    for key in [key for key in os.environ if key.startswith("_VLM")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("_VLM_ROOFLINE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"vlm-roofline {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    main([])
    assert set(capsys.readouterr().out.split()) >= offered


def test_completion_reads_nothing() -> None:
    """A shell calls it at every key: no spec, no config, no method is read, and nothing heavy."""
    program = (
        "import sys\n"
        "from vlm_roofline.cli.completion import NAMES, completes\n"
        "assert all(completes(name)('') for name in NAMES)\n"
        "sys.exit(', '.join({'torch', 'pandas', 'yaml', 'transformers', 'costmodel.methods.fastv'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stderr.strip() == ""


def test_of_several_processes_another_says_it_only_where_the_first_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)  # torchrun would end the process meanwhile
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "h")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert main(["estimate", "llava-1.5-7b", "-d", "nvidia-l4", "--method", "nothing"]) == 2
    assert waited == [10.0]
    assert capsys.readouterr().err.startswith("error: ")
    monkeypatch.setenv("RANK", "0")
    assert main(["estimate", "llava-1.5-7b", "-d", "nvidia-l4", "--method", "nothing"]) == 2
    assert len(waited) == 1
