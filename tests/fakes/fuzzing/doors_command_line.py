"""The command line in one process: valid commands, one or two words spoilt."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import TYPE_CHECKING, Any

from fuzzing.mutation import TEXTS
from fuzzing.running import Door
from fuzzing.verdict import MOST_CHARACTERS, Wrong, check_sane
from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

MODELS = (
    "llava-1.5-7b",
    "llava-next-vicuna-7b",
    "video-llava-7b",
    "llama-2-7b",
    "llava-onevision-7b",
)
DEVICES = ("nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "google-tpu-v6e", "nvidia-t4")
COUNTS = ("0", "1", "64", "576", "1,64", "1:577:64", "-1", "1e3", "1:", "5:1", "1:2:0", "1:9:3:4")
PRICING = {
    "--text-tokens": ("0", "40"), "--batch-size": ("1", "8", "0"), "--precision": ("fp16", "fp8", "int4"),
    "--method": ("divprune", "fastv", "fitprune", "prumerge+", "tome"), "--keep": ("64", "0.1", "1.5"),
    "--execution": ("fused", "hf-eager", "cuda-graph"), "--calibration": ("generic", DEVICES[0], "/dev/zero"),
}  # fmt: skip
LONGER = {"--output-tokens": ("0", "8"), "--visual-tokens": COUNTS, "--layer": ("2",), "--logits": ("all",),
          "--image-size": ("480x640", "0x1", "axb", "1x2x3"), "--frames": ("4", "0"),
          "--images": ("1", "3", "0"), "--attention": ("eager",),
          "--vision-layers": ("useful",)}  # fmt: skip
BUDGETS = {"--latency-ms": ("20", "0", "-1", "nan", "inf"), "--memory-gb": ("16", "inf", "1e-9")}
#: command -> positional words and options with their values; an empty tuple marks a flag.
COMMANDS: dict[tuple[str, ...], tuple[tuple[tuple[str, ...], ...], dict[str, tuple[str, ...]]]] = {
    ("estimate",): ((MODELS,), {"-d": DEVICES, **PRICING, **LONGER, "--json": (), "--ops": (),
                                "--convention": ("llmviewer", "fastv")}),
    ("sweep",): ((MODELS,), {"-d": DEVICES, **PRICING, **LONGER, "--json": (), "--stage-columns": (),
                             "--errors": ("keep", "raise")}),
    ("break-even",): ((MODELS,), {"-d": DEVICES, **PRICING, **BUDGETS, "--most": ("40", "0"), "--json": ()}),
    ("frontier",): ((MODELS[:1],), {"-d": DEVICES, "--benchmark": ("pope", "mme"), **BUDGETS,
                                    "--rank": ("score", "retained"), "--training-free": (), "--json": ()}),
    ("models", "list"): ((), {"--json": ()}),
    ("models", "show"): ((MODELS,), {"--json": ()}),
    ("specs", "list"): ((), {"--json": ()}),
    ("specs", "show"): ((DEVICES,), {"--json": ()}),
    ("methods", "list"): ((), {"--json": ()}),
    ("methods", "show"): ((("fastv", "divprune", "tome"),), {"--json": ()}),
    ("reproduce",): ((("fastv", "divprune"),), {"--json": ()}),
    ("audit",): ((("divprune", "sparsevlm"),), {"--copies": ("0", "9", "-1"), "--json": (), "-d": DEVICES,
                                                "--text-tokens": ("40", "-1"), "--column": ("a=flops", "a")}),
    ("measurements",): ((("/nosuch", "/dev/null", "/dev/zero"),), {"--csv": (), "--json": ()}),
    ("reconcile",): ((("/nosuch", "/dev/null", "/dev/zero"),), {"--calibration": ("generic",), "--json": ()}),
}  # fmt: skip
_WEIGHTS = (30, 15, 4, 2, 1, 3, 1, 3, 1, 2, 1, 1, 2, 2)


def _case(random: Random, _: Path) -> list[str]:
    words = random.choices(list(COMMANDS), _WEIGHTS)[0]
    positional, options = COMMANDS[words]
    argv = [*words, *(random.choice(choices) for choices in positional)]
    needed = [name for name in ("-d", "--benchmark") if name in options]
    for name in [
        *needed,
        *random.sample(sorted(options), random.randrange(min(5, len(options) + 1))),
    ]:
        argv += [name, random.choice(options[name])] if options[name] else [name]
    for _ in range(random.choice((0, 1, 1, 2))):
        at = random.randrange(len(words), len(argv) + 1)
        word = random.choice((*TEXTS, "--json", "--nosuch", "-d", "--keep"))
        argv[at : at + random.choice((0, 1, 1))] = [word]
    return [word.replace("\x00", "") for word in argv]


def called(argv: list[str]) -> Any:
    """Call the command line; return the JSON it printed, or raise what its refusal amounts to."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    said = [line for line in err.getvalue().splitlines() if not line.startswith("warning: ")]
    if "\x1b" in out.getvalue() + err.getvalue():
        raise Wrong("a terminal escape was printed")
    if code == 2:
        if (
            len(said) != 1
            or not said[0].startswith("error: ")
            or len(said[0]) > MOST_CHARACTERS + 20
        ):
            raise Wrong(f"exit 2 without its one line: {said[:3]}")
        raise InvalidInputError(said[0])
    if code != 0:
        raise Wrong(f"exit {code}: {said[:3]}")
    text = out.getvalue()
    if "--help" in argv or "-h" in argv:
        return None
    if "--json" in argv:
        document = json.loads(text, parse_constant=_no_number)
        check_sane(document)
        return None
    echoed = any(word in argv for word in ("nan", "inf"))
    if not echoed and re.search(r"(?<![\w-])(nan|inf)(?![\w-])", text):
        raise Wrong("nan or inf was printed")
    return None


def _no_number(name: str) -> float:
    raise Wrong(f"{name} in JSON")


DOORS = (Door("command line", _case, called, heavy=2),)
