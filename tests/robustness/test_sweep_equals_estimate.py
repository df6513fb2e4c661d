"""A sweep of many rows says on every column what `estimate` says of each row alone."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from fuzzing.doors_api import METHODS, taking

from costmodel import estimate, load_model, sweep
from hardware_specs.errors import VlmRooflineError

#: Settings that price differently: plan, precision, calibration, attention, logits, layers of the tower.
SETTINGS = (
    {},
    {"execution": "hf-eager", "calibration": "generic", "keep": 0.9},
    {"execution": "cuda-graph", "precision": "int4", "keep": 0.1},
    {"calibration": "nvidia-a100-sxm4-80gb", "precision": "bf16", "keep": 0.5, "logits": "all"},
    {"calibration": "generic", "attention": "eager", "vision_layers": "useful", "keep": 64},
)
MODELS = ("llava-1.5-7b", "llava-next-vicuna-7b", "video-llava-7b", "llava-onevision-7b")
A100 = "nvidia-a100-sxm4-80gb"


def flat(cost):
    """An estimate under the names that a sweep's columns have."""
    found = cost.to_dict()
    memory = {**found["memory"], "model_weight_bytes": found["memory"]["weight_bytes"]}
    row = {k: v for k, v in memory.items() if k not in ("weight_bytes", "capacity_bytes")}
    row |= found["totals"]
    for stage, values in found["stages"].items():
        row |= {f"{stage}_{name}": value for name, value in values.items()}
    return row


def differences(row, expected):
    """Columns of one row that do not say what the estimate says."""
    wrong = {}
    for name, value in expected.items():
        given = row[name]
        missing = given is None or given != given
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # Rows are float64; an estimate counts integers exactly.
            if missing or not math.isclose(given, value, rel_tol=1e-9, abs_tol=1e-15):
                wrong[name] = (given, value)
        elif value is None:
            if not missing:
                wrong[name] = (given, value)
        elif given != value:
            wrong[name] = (given, value)
    return wrong


@pytest.mark.parametrize("method", METHODS)
def test_every_row_and_column(method):
    generator = random.Random(method)
    priced = 0
    for model in taking(method, MODELS):
        config = load_model(model)
        one, run = config.visual_input(), config.visual_input(count="transformers")
        for settings in SETTINGS:
            # Two counts that every method can start from: one image, and several.
            asked = [*generator.sample(range(1, 577), 4), 144, one.tokens, 3 * run.tokens]
            rows = {"visual_tokens": asked, "batch_size": [1, 7], "output_tokens": [0, 3]}
            fixed = {"method": method, **settings}
            kept = sweep(model, A100, **rows, **fixed, errors="keep")
            costs = {}
            for row in kept.to_dict("records"):
                counts = {name: int(row[name]) for name in rows}
                try:
                    costs[tuple(counts.values())] = estimate(model, A100, **counts, **fixed)
                except VlmRooflineError as error:
                    assert row["error"], f"sweep prices what estimate refuses: {counts}: {error}"
                    continue
                assert row["error"] is None or row["error"] != row["error"], (counts, row["error"])
            if not costs:
                continue
            # The rows that can be priced, all at once: none may hang on another.
            rows["visual_tokens"] = [*dict.fromkeys(tokens for tokens, *_ in costs)]
            table = sweep(model, A100, **rows, **fixed, stage_columns=True)
            assert len(table) == len(costs)
            for row in table.to_dict("records"):
                counts = tuple(int(row[name]) for name in rows)
                assert not differences(row, flat(costs[counts])), (model, fixed, counts)
            priced += len(table)
    assert priced >= 40


@pytest.mark.parametrize("images", ["a", [1.5], 10**400, True])
def test_a_count_that_is_none_is_kept_with_its_reason(images):
    (row,) = sweep("llava-1.5-7b", A100, images=images, errors="keep").to_dict("records")
    assert "images" in row["error"]
    assert row["images"] is None or row["images"] != row["images"]


def test_rows_are_counted_without_going_through_them():
    from costmodel.questions.sweep_plan import SweepPlan

    for method in ("none", "divprune", ["none", "divprune", None, "fastv"]):
        plan = SweepPlan(MODELS[0], [A100] * 3, method=method, keep=[0.1, 0.5], layer=[None, 2, 3])
        methods = method if isinstance(method, list) else [method]
        expected = [
            (device, name, keep, layer)
            for device in range(3)
            for name in methods
            for keep, layer in (
                [(None, None)]
                if len(methods) > 1 and name in ("none", None)
                else product([0.1, 0.5], [None, 2, 3])
            )
        ]
        found = [plan.combination(number) for number in range(plan.combined)]
        names = ("method", "keep", "layer")
        assert plan.rows == len(expected)
        assert [tuple(each[name] for name in names) for each in found] == [e[1:] for e in expected]
    many = ["flash"] * 5000
    assert SweepPlan(MODELS[0], [A100] * 5000, attention=many).rows == 25_000_000
