"""Numbers of a few hundred estimates, sweeps and reproduced tables, kept from one version to the next.

Every argument that changes a cost is given, so that a new default changes nothing here. A stored
number that changes on purpose is named in docs/changed-numbers.md, and the file is made again:

    python tests/costmodel/test_stored_numbers.py
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from costmodel import estimate, list_models, sweep
from costmodel.conventions import list_conventions
from costmodel.reproduce import list_tables, reproduce
from hardware_specs.errors import VlmRooflineError

FILE = Path(__file__).parent / "data" / "stored_numbers.json.gz"
A100, H100, V100 = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "nvidia-v100-sxm2-32gb"
MODELS = (
    "llama-2-13b", "llama-2-7b", "llava-1.5-13b", "llava-1.5-7b", "llava-next-mistral-7b",
    "llava-next-vicuna-13b", "llava-next-vicuna-7b", "llava-next-video-7b", "llava-onevision-7b",
    "video-llava-7b",
)  # fmt: skip
METHODS = (
    "prumerge", "prumerge+", "divprune", "fastv", "vtw", "fitprune", "tome", "ats", "evit",
    "crossget", "sequential", "spatial", "m3",
)  # fmt: skip
PLANS = ("fused", "hf-eager", "cuda-graph")
DEFAULTS: dict[str, Any] = {
    "hardware": A100, "visual_tokens": None, "text_tokens": 40, "batch_size": 1, "output_tokens": 3,
    "precision": "fp16", "method": "none", "keep": None, "layer": None, "execution": "fused",
    "calibration": None, "convention": "torch", "attention": "flash", "logits": "last",
    "vision_layers": "executed",
}  # fmt: skip
#: Quantities that stand in the file, in its order; later versions may have more.
COST = (
    "flops", "executed_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes",
    "activation_read_bytes", "activation_write_bytes", "kernels", "time_s", "time_low_s",
    "time_high_s", "bound",
)  # fmt: skip
TOTAL = (*COST, "ttft_s", "tpot_s")
TIMES = ("time_s", "time_low_s", "time_high_s", "bound", "ttft_s", "tpot_s")
MEMORY = (
    "weight_bytes", "kv_cache_bytes", "peak_activation_bytes", "peak_memory_bytes", "fits",
    "activation_bytes_written",
)  # fmt: skip


def cases() -> list[dict[str, Any]]:
    """The arguments of every stored estimate, as far as they are not `DEFAULTS`."""
    found: list[dict[str, Any]] = [
        {"model": model, "method": method, "execution": plan}
        for model, method, plan in itertools.product(MODELS, ("none", *METHODS), PLANS)
    ]
    found += [
        {"model": model, "precision": precision, "execution": plan, "attention": attention}
        for model in ("llava-1.5-7b", "llava-next-mistral-7b", "llava-onevision-7b")
        for precision in ("fp32", "bf16", "w8a16", "w4a16", "w8a8", "fp8", "w4a4")
        for plan, attention in itertools.product(PLANS, ("flash", "eager"))
    ]
    found += [
        {"model": "llava-1.5-7b", "method": method, "keep": keep, "precision": "w8a8",
         "execution": "hf-eager", "batch_size": 3, "visual_tokens": 576}
        for method, keep in itertools.product(METHODS, (64, 0.25, 1.0))
    ]  # fmt: skip
    found += [
        {"model": model, "hardware": device, "calibration": calibration, "method": method,
         "execution": plan, "precision": precision}
        for model, (device, calibration), method, plan, precision in itertools.product(
            ("llava-1.5-7b", "llava-onevision-7b"),
            ((A100, A100), (H100, H100), (V100, "generic")),
            ("none", "divprune", "fastv"), ("fused", "hf-eager"), ("fp16", "w4a16"),
        )
    ]  # fmt: skip
    found += [
        {"model": model, "convention": convention, "method": method, "visual_tokens": 576,
         "attention": None, "hardware": "nvidia_A100" if "viewer" in convention else A100,
         "output_tokens": 0, "execution": "fused"}
        for model, convention, method in itertools.product(
            ("llava-1.5-7b", "llama-2-13b"),
            ("divprune", "fastv", "llava-mini", "llmviewer-2024-02", "llmviewer-2024-07",
             "pyramiddrop", "shortv", "sparsevlm"),
            ("none", "fastv"),
        )
    ]  # fmt: skip
    found += [
        {"model": "llava-1.5-7b", "visual_tokens": tokens, "text_tokens": text, "logits": logits,
         "vision_layers": layers, "execution": plan}
        for tokens, text, logits, layers, plan in itertools.product(
            (0, 1, 577, 1152), (1, 500), ("last", "all"), ("executed", "useful"), PLANS
        )
    ]  # fmt: skip
    found += [
        {"model": model, **shape}
        for model, shapes in {
            "llava-next-vicuna-7b": ({"image_size": (480, 640)}, {"image_size": (1000, 200)}),
            "llava-onevision-7b": ({"image_size": (384, 384)}, {"frames": 8}),
            "llava-next-video-7b": ({"frames": 4}, {"image_size": (336, 336)}),
            "video-llava-7b": ({"frames": 8}, {"image_size": (224, 224)}),
        }.items()
        for shape in shapes
    ]
    return found


def stored(case: dict[str, Any]) -> list[Any]:
    """Stages, totals, memory, and a digest of the op table; or the kind of error."""
    arguments = DEFAULTS | case
    arguments["method"] = None if arguments["method"] == "none" else arguments["method"]
    try:
        cost = estimate(**arguments)
    except VlmRooflineError as error:
        return [type(error).__name__]
    document = cost.to_dict()
    calibrated = arguments["calibration"] is not None
    if calibrated:  # Calibrations get better; what they price stays.
        for each in (*document["stages"].values(), document["totals"]):
            each.update(dict.fromkeys(TIMES))
    stages = [[stage.get(name) for name in COST] for stage in document["stages"].values()]
    totals = [document["totals"].get(name) for name in TOTAL]
    memory = [document["memory"].get(name) for name in MEMORY]
    counted = arguments["convention"] == "torch"
    ops = [
        (op.stage, op.name, op.op_class, op.dtype, op.count, op.flops, op.executed_flops,
         op.weight_bytes, op.kv_read_bytes, op.kv_write_bytes, op.activation_read_bytes,
         op.activation_write_bytes, op.kernels, None if calibrated else op.bound,
         None if calibrated else f"{op.time_s:.9e}")
        for op in (cost.ops if counted else ())
    ]  # fmt: skip
    kv = list(cost.kv_bytes_by_layer) if counted else []
    digest = hashlib.sha256(repr((ops, kv)).encode()).hexdigest()[:16]
    return [stages, totals, memory, digest]


def swept() -> dict[str, Any]:
    """Sweeps of many rows; those that cannot be priced are empty."""
    tables = {}
    for model in ("llava-1.5-7b", "llava-next-vicuna-7b"):
        for method in (None, "divprune", "fastv", "vtw", "tome", "evit", "spatial"):
            table = sweep(
                model, [A100, H100], visual_tokens=[576, 144, 1152], text_tokens=[40],
                batch_size=[1, 8], output_tokens=[0, 5], precision=["fp16", "w4a16"],
                method=method, keep=None, execution=["fused", "hf-eager"], calibration=None,
                attention="flash", logits="last", vision_layers="executed", errors="keep",
            )  # fmt: skip
            columns = [*(name for name in COST), "ttft_s", "peak_memory_bytes", "kv_cache_bytes"]
            tables[f"{model} {method}"] = [
                [None if value != value else value for value in row]
                for row in table[columns].values.tolist()
            ]
    return tables


def reproduced() -> dict[str, Any]:
    """The rows of every reproduced table that counts, apart from words."""
    found = {}
    for name in list_tables():
        if name.startswith("measured"):  # Rests on calibrations, which get better.
            continue
        rows = reproduce(name).to_dict()["rows"]
        found[name] = [
            {key: value for key, value in row.items() if isinstance(value, (int, float, bool))}
            for row in rows
        ]
    return found


STORED: dict[str, Any] = (
    json.loads(gzip.decompress(FILE.read_bytes())) if FILE.exists() else {"estimates": []}
)


def same(now: Any, then: Any) -> bool:
    """Whole numbers, words and digests are equal, floats to twelve digits: the order of sums is free.

    A relative error, which is a difference of such numbers, has fewer digits of its own.
    """
    if isinstance(then, list):
        return len(now) == len(then) and all(map(same, now, then))
    if isinstance(then, dict):
        return all(
            key in now
            and (
                same(now[key], value) or (key == "relative_error" and abs(now[key] - value) < 1e-15)
            )
            for key, value in then.items()
        )
    if isinstance(then, float) and now is not None:
        return bool(now == pytest.approx(then, rel=1e-12, abs=1e-300))
    return bool(now == then)


def test_the_file_has_every_case() -> None:
    assert [case for case, _ in STORED["estimates"]] == json.loads(json.dumps(cases()))
    assert set(MODELS) <= set(list_models())
    assert {case.get("convention") for case in cases()} - {None} <= set(list_conventions())


@pytest.mark.parametrize("part", range(8))
def test_estimates_are_as_stored(part: int) -> None:
    wrong = []
    for case, then in STORED["estimates"][part::8]:
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in case.items()}
        now = json.loads(json.dumps(stored(given)))
        if not same(now, then):
            wrong.append((case, now, then))
    assert not wrong, f"{len(wrong)} differ, the first: {wrong[0]}"


def test_sweeps_are_as_stored() -> None:
    now = json.loads(json.dumps(swept()))
    assert not [name for name, then in STORED["sweeps"].items() if not same(now[name], then)]


def test_reproduced_tables_are_as_stored() -> None:
    now = json.loads(json.dumps(reproduced()))
    assert not [name for name, then in STORED["tables"].items() if not same(now[name], then)]


def main() -> None:
    """Make the file again."""
    document = {
        "estimates": [[case, stored(case)] for case in cases()],
        "sweeps": swept(),
        "tables": reproduced(),
    }
    text = json.dumps(document, separators=(",", ":"), default=float)
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
