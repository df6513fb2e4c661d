"""The Python interface of the cost model: valid requests, one or two arguments spoilt."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from costmodel import (
    break_even,
    estimate,
    frontier,
    largest_batch,
    list_models,
    solve_schedule,
    sweep,
)
from fuzzing.mutation import hostile
from fuzzing.running import Door
from hardware_specs import list_hardware
from hardware_specs.errors import VlmRooflineError
from token_reduction import list_methods

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

DEVICES = tuple(list_hardware())
MODELS = (*list_models(), "llava-1.5-7b@layers=4,width=1/4")
METHODS = tuple(list_methods())
POOLS: dict[str, tuple[Any, ...]] = {
    "visual_tokens": (None, 0, 1, 2, 17, 64, 576, 577, 2880),
    "text_tokens": (1, 40, 3000),
    "batch_size": (1, 8, 64),
    "output_tokens": (0, 1, 128),
    "precision": ("fp16", "bf16", "fp8", "int8", "int4", "fp32", "w4a16", "w8a8"),
    "method": (None, "none", *METHODS),
    "keep": (None, 0, 1, 64, 576, 0.1, 0.5, 1.0),
    "execution": ("fused", "hf-eager", "cuda-graph"),
    "calibration": (None, None, "generic", "nvidia-a100-sxm4-80gb"),
    "attention": ("flash", "eager"),
    "logits": ("last", "all"),
    "layer": (None, None, 0, 2, 16),
    "image_size": (None, None, (336, 336), (480, 640), [(336, 336), (480, 640)]),
    "frames": (None, None, 4),
    "images": (None, 0, 1, 2, 7),
    "vision_layers": ("executed", "useful"),
}
BENCHMARKS = ("pope", "mme", "textvqa", "gqa", "vqav2")


def _arguments(random: Random) -> dict[str, Any]:
    """A model, a device and some other arguments, as a caller would choose them."""
    names = random.sample(sorted(POOLS), random.randrange(7))
    return {
        "model": random.choice(MODELS),
        "hardware": random.choice(DEVICES),
        **{name: random.choice(POOLS[name]) for name in names},
    }


def _spoil(random: Random, given: dict[str, Any]) -> dict[str, Any]:
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        name = random.choice([*given, *random.sample(sorted(POOLS), 2)])
        given[name] = hostile(random)
    return given


def _estimate_case(random: Random, _: Path) -> dict[str, Any]:
    given = _arguments(random)
    if random.random() < 0.1:
        given["convention"] = random.choice(("llmviewer", "prumerge", "fastv", "llava-mini", "x"))
    return _spoil(random, given)


def _estimate(given: dict[str, Any]) -> Any:
    cost = estimate(**given)
    rows = [row.to_dict() for row in cost.ops] if cost.inputs["convention"] == "torch" else []
    return {**cost.to_dict(), "ops": rows}


def _sweep_case(random: Random, _: Path) -> dict[str, Any]:
    given = _arguments(random)
    for name in random.sample(sorted(given), min(2, len(given))):
        if name in POOLS and name != "calibration" and random.random() < 0.5:
            given[name] = [random.choice(POOLS[name]) for _ in range(2)]
    given = _spoil(random, given)
    given["errors"] = random.choice(("raise", "raise", "keep"))
    given["stage_columns"] = random.random() < 0.3
    return given


def _sweep(given: dict[str, Any]) -> Any:
    table = sweep(**given)
    # Nothing decoded has no time per token, and what could not be priced has no cost at all.
    priced = table[table["error"].isna()] if "error" in table else table
    given_as_nothing = ["keep", "layer", "frames", "host_s", "power_limit_w"]
    numbers = priced.drop(columns=given_as_nothing, errors="ignore").select_dtypes("number")
    empty = {name for name in numbers if numbers[name].isna().all() or name == "tpot_s"}
    return {name: numbers[name].to_numpy() for name in numbers if name not in empty}


def _question_case(random: Random, _: Path) -> tuple[str, dict[str, Any]]:
    given = _arguments(random)
    question = random.choice(("break_even", "largest_batch", "frontier", "solve_schedule"))
    budgets = (None, 0.02, 1e-9, 8e10)
    if question == "solve_schedule":
        asked = {
            "model": given["model"],
            "method": given.get("method") or "pyramiddrop",
            "mean_tokens": random.choice((0.5, 64, 192, 576, 10**30)),
            "layers": random.choice((None, 2, (4, 8), [16])),
        }
        if random.random() < 0.7:
            asked[random.choice(sorted(asked))] = hostile(random)
        return question, asked
    if question == "break_even":
        given.pop("visual_tokens", None)
        given |= {"most": random.choice((None, 1, 40)), "latency_s": random.choice(budgets)}
    elif question == "largest_batch":
        given.pop("batch_size", None)
    else:
        for name in ("visual_tokens", "method", "keep", "layer"):
            given.pop(name, None)
        given |= {"benchmark": random.choice(BENCHMARKS), "latency_s": random.choice(budgets)}
        given["model"] = random.choice(("llava-1.5-7b", "llava-1.5-7b", given["model"]))
    given["memory_bytes"] = random.choice(budgets)
    return question, _spoil(random, given)


def _question(case: tuple[str, dict[str, Any]]) -> Any:
    name, given = case
    if name == "largest_batch":
        return largest_batch(**given)
    if name == "solve_schedule":
        return solve_schedule(**given).to_dict()
    return (break_even if name == "break_even" else frontier)(**given).to_dict()


DOORS = (
    Door("estimate", _estimate_case, _estimate),
    Door("sweep", _sweep_case, _sweep, heavy=2),
    Door("questions", _question_case, _question, heavy=10),
)


def taking(method, models):
    """The models where one of them takes a method as it stands, else one of native resolution."""
    for model in models:
        with suppress(VlmRooflineError):
            estimate(model, "nvidia-a100-sxm4-80gb", method=method)
            return models
    return ("qwen2.5-vl-7b",)
