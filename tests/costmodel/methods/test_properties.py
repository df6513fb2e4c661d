"""What must hold for every method."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import estimate, sweep
from costmodel.methods import list_methods, method_info
from costmodel.methods.info import Place
from costmodel.quantities import COST_KEYS
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
#: Methods that compare the frames of a clip have tests of their own: they leave images alone.
NAMES = tuple(name for name in list_methods() if not method_info(name).clips)
#: Methods that take any count of tokens, and how many of them a model's default has.
BY_COUNT = (
    *("prumerge", "divprune", "fastv", "tome", "ats", "evit", "crossget", "sequential"),
    *("visionzip", "fastervlm", "vispruner", "cdpruner", "hired", "pyramiddrop", "random"),
    *("holov", "hiprune", "v2drop", "vscan"),
)
#: Methods that work on one sequence of the batch after the other, so that they launch more for more.
ONE_BY_ONE = ("hired", "pyramiddrop", "dart", "sparsevlm", "vscan")


@pytest.mark.parametrize("name", NAMES)
def test_costs_less_than_the_whole_model(name) -> None:
    assert estimate(MODEL, A100, method=name).totals.flops < estimate(MODEL, A100).totals.flops


@pytest.mark.parametrize("name", NAMES)
def test_keeping_everything_leaves_the_model_alone(name) -> None:
    plain, kept = estimate(MODEL, A100), estimate(MODEL, A100, method=name, keep=1.0)
    for stage, cost in plain.stages.items():
        assert kept.stages[stage].flops == cost.flops
        if name != "ats":  # draws its samples all the same
            assert kept.stages[stage].hbm_bytes == cost.hbm_bytes
    assert (kept.stages["reduction"].kernels == 0) == (name != "ats")
    assert kept.memory.peak_memory_bytes == plain.memory.peak_memory_bytes


@pytest.mark.parametrize("name", ["divprune", "fastv", "sequential"])
def test_a_full_count_adds_only_the_methods_own_cost(name) -> None:
    plain, kept = estimate(MODEL, A100), estimate(MODEL, A100, method=name, keep=576)
    for stage in ("vision", "projector", "prefill"):
        assert kept.stages[stage].flops == plain.stages[stage].flops
    assert kept.totals.flops == plain.totals.flops + kept.stages["reduction"].flops


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BY_COUNT),
    st.integers(16, 500),
    st.integers(1, 76),
    st.sampled_from([1, 4]),
)
def test_fewer_tokens_never_cost_more(name, keep, fewer, batch) -> None:
    few = estimate(MODEL, A100, method=name, keep=keep, batch_size=batch)
    more = estimate(MODEL, A100, method=name, keep=keep + fewer, batch_size=batch)
    for stage in ("vision", "projector", "prefill"):
        assert few.stages[stage].flops <= more.stages[stage].flops
    # Merging layers compare what is left: own work may fall while the model's rises.
    assert few.totals.flops <= more.totals.flops
    assert few.memory.kv_cache_bytes <= more.memory.kv_cache_bytes


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.integers(2, 16), st.integers(4, 200))
def test_linear_in_the_batch(name, batch, text) -> None:
    one = estimate(MODEL, A100, method=name, text_tokens=text)
    many = estimate(MODEL, A100, method=name, text_tokens=text, batch_size=batch)
    for stage, cost in one.stages.items():
        assert many.stages[stage].flops == batch * cost.flops
    own, all_ = one.stages["reduction"].kernels, many.stages["reduction"].kernels
    if name in ONE_BY_ONE:
        assert own < all_ < batch * own
    else:
        # Only where there are several crops their keys are laid out for a batched product.
        assert all_ - own == (name in ("visionzip", "fastervlm", "vispruner", "holov"))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 100),
    st.integers(1, 8),
    st.integers(0, 20),
    st.sampled_from(["fused", "hf-eager"]),
)
def test_one_scenario_is_a_row_of_many(name, images, text, batch, output, execution) -> None:
    text = max(text, 4 if name == "dart" else 1)
    shape = {
        "visual_tokens": images * 576, "text_tokens": text, "batch_size": batch,
        "output_tokens": output, "method": name, "execution": execution,
    }  # fmt: skip
    cost = estimate(MODEL, A100, **shape)
    # A second row keeps the arrays from being of length one.
    numbers = {key: [shape[key]] for key in ("text_tokens", "batch_size", "output_tokens")}
    rows = sweep(
        MODEL, A100, stage_columns=True, method=name, execution=execution,
        visual_tokens=[images * 576, 576 * 4], **numbers,
    )  # fmt: skip
    row = rows.iloc[0]
    for stage, stage_cost in cost.stages.items():
        assert row[f"{stage}_flops"] == stage_cost.flops, stage
        assert row[f"{stage}_kernels"] == stage_cost.kernels, stage
        assert row[f"{stage}_time_s"] == pytest.approx(stage_cost.time_s, rel=1e-12)
    assert row["peak_memory_bytes"] == pytest.approx(cost.memory.peak_memory_bytes)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_without_an_image_is_left_alone(name) -> None:
    plain = estimate(MODEL, A100, visual_tokens=0)
    kept = estimate(MODEL, A100, visual_tokens=0, method=name)
    assert kept.totals.flops == plain.totals.flops
    assert kept.stages["reduction"].kernels == 0
    table = sweep(MODEL, A100, visual_tokens=[0, 576], method=name, stage_columns=True)
    assert table["flops"].iloc[0] == plain.totals.flops
    assert table["reduction_kernels"].iloc[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_own_work_is_named_and_finite(name) -> None:
    cost = method_info(name)
    for text in (cost.summary, cost.formula, cost.complexity, cost.source, cost.default_text):
        assert text
    assert cost.place in get_args(Place)
    stage = estimate(MODEL, A100, method=name, precision="w4a16", execution="hf-eager").stages
    assert np.isfinite(stage["reduction"].time_s)
    assert stage["reduction"].time_s > 0


NEWER = (
    "visionzip",
    "fastervlm",
    "vispruner",
    "cdpruner",
    "hired",
    "pyramiddrop",
    "dart",
    "sparsevlm",
    "holov",
    "hiprune",
    "v2drop",
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NEWER),
    st.sampled_from([None, 0.05, 0.3, 0.77, 1.0]),
    st.lists(st.integers(0, 3000), min_size=2, max_size=8, unique=True),
    st.sampled_from([4, 40]),
    st.sampled_from(["llava-1.5-7b", "llava-next-vicuna-7b"]),
)
def test_every_column_of_every_row_is_its_estimate(name, keep, visual, text, model) -> None:
    keep = None if name == "sparsevlm" and keep != 1.0 else keep
    costs = {}
    for tokens in visual:
        shape = {"visual_tokens": tokens, "text_tokens": text, "batch_size": 2, "output_tokens": 3}
        try:
            costs[tokens] = estimate(model, A100, method=name, keep=keep, **shape)
        except InvalidInputError as error:
            assert "give" in str(error)
    if not costs:
        return
    table = sweep(
        model, A100, method=name, keep=keep, stage_columns=True, visual_tokens=list(costs),
        text_tokens=[text], batch_size=[2], output_tokens=[3],
    )  # fmt: skip
    assert len(table) == len(costs)
    for (_, row), (tokens, cost) in zip(table.iterrows(), costs.items(), strict=True):
        for stage, of_stage in cost.stages.items():
            for key in COST_KEYS:
                column = f"{stage}_{key}"
                if column not in row or key == "bound":
                    continue
                value = of_stage[key]
                assert np.isfinite(value)
                assert value >= 0
                assert row[column] == pytest.approx(value, rel=1e-12), (column, tokens)
        assert row["peak_memory_bytes"] == pytest.approx(cost.memory.peak_memory_bytes)
        if model != MODEL and method_info(name).place != "llm-layer":
            # Crops that were reduced one by one are joined whole, padding and all.
            continue
        plain = estimate(model, A100, visual_tokens=tokens, text_tokens=text, batch_size=2)
        assert cost.stages["prefill"].flops <= plain.stages["prefill"].flops
        assert cost.memory.kv_cache_bytes <= plain.memory.kv_cache_bytes * (1 + 3 / text)
