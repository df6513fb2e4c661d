"""What a rank holds, computes and sends, against what `torch.distributed` gives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import estimate, list_models, load_model, serve, sweep
from costmodel.blocks import Attend, Norm, Project
from costmodel.parallel import Parallel
from costmodel.parallel.exchange import Exchange
from costmodel.parallel.sharding import (
    pipeline_stage,
    rank_model,
    stages_of,
    tower_alone,
    without_tower,
)
from costmodel.questions.reducers import top_k
from hardware_specs.errors import InvalidInputError, VlmRooflineError

A100 = "nvidia-a100-sxm4-80gb"
RANK = Path(__file__).with_name("rank.py")
#: The shape of the models of `rank.py`, and their kinds: grouped heads, biases, normed heads.
TINY = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "tie_word_embeddings": False,
}  # fmt: skip
KINDS = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def test_two_gloo_ranks_hold_compute_and_send_what_is_predicted(tmp_path: Path) -> None:
    """The plan of transformers, run by two processes that answer as the whole model does."""
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANK), str(rank), "2", str(tmp_path / "meet"), json.dumps(TINY),
             *KINDS, "llama+sequence"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=240) for process in ranks]
    assert all(process.returncode == 0 for process in ranks), told
    first, second = (json.loads(out) for out, _ in told)
    assert first == second
    for name, seen in first.items():
        kind, _, by_sequence = name.partition("+")
        model = load_model({"model_type": kind, "architectures": [KINDS[kind]], **TINY})
        norms = "sequence" if by_sequence else "replicated"
        cost = estimate(
            model, A100, text_tokens=12, precision="fp32", logits="all", tp=2, norms=norms
        )
        assert seen["off"] < 1e-5
        assert rank_model(model, 2).parameters == seen["parameters"]
        assert cost.totals.flops == seen["flops"]
        assert cost.communication is not None
        # 12 rows of 64 numbers: the embedding, and two branches in each of two layers.
        if by_sequence:  # As often gathered as scattered: in front of each branch, and of the head.
            assert cost.communication["bytes"] == {
                "reduce_scatter": seen["reduce_scatter"], "all_gather": seen["all_gather"],
            } == {"reduce_scatter": 5 * 12 * 64 * 4, "all_gather": (5 * 64 + 128) * 12 * 4}  # fmt: skip
            assert cost.communication["count"] == {
                "reduce_scatter": seen["reduce_scatters"], "all_gather": seen["all_gathers"],
            } == {"reduce_scatter": 5, "all_gather": 6}  # fmt: skip
            continue
        assert cost.communication["bytes"] == {
            "all_reduce": seen["all_reduce"], "all_gather": seen["all_gather"],
        } == {"all_reduce": 5 * 12 * 64 * 4, "all_gather": 12 * 128 * 4}  # fmt: skip
        assert cost.communication["count"] == {"all_reduce": seen["all_reduces"], "all_gather": 1}


def _shares(name: str, tp: int) -> Any:
    try:
        return rank_model(load_model(name), tp)
    except InvalidInputError as error:
        assert f"tp={tp} does not divide" in str(error)
        return None


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("name", list_models())
def test_ranks_hold_the_model_and_what_they_repeat(name: str, tp: int) -> None:
    """tp x rank = whole + (tp - 1) x what everybody holds + padding + repeated KV heads."""
    whole, rank = load_model(name).text, _shares(name, tp)
    if rank is None:
        return
    text = rank.text
    repeated = 0
    for kind, mine in zip(whole.stack.kinds, text.stack.kinds, strict=True):
        layers = whole.stack.pattern.count(whole.stack.kinds.index(kind))
        mine = tuple(block for block in mine if not isinstance(block, Exchange))
        for block, part in zip(kind, mine, strict=True):
            assert type(part) is type(block)
            if isinstance(block, Norm) or block == part:
                repeated += layers * (tp - 1) * block.parameters
            elif isinstance(block, Project) and block.bias and part.width < block.width:
                repeated += layers * (tp - 1) * block.outputs
            elif isinstance(block, Project) and part.width == block.width:
                more = part.outputs * tp - block.outputs
                # Each of k heads is held tp / k times.
                kept = 2 * max(tp - whole.num_kv_heads, 0) * whole.head_dim
                assert more == (kept if block.name == "qkv_proj" else 0)
                repeated += layers * (block.width + block.bias) * more
    norm = sum(block.parameters for block in whole.stack.after)
    padding = text.embedding.table * tp - whole.vocab_size
    assert 0 <= padding < tp
    tables = 1 if whole.tie_embeddings else 2
    repeated += (tp - 1) * norm + tables * padding * whole.hidden_size
    assert text.parameters * tp == whole.parameters + repeated


def test_fewer_kv_heads_than_ranks_are_repeated() -> None:
    """Gemma-3-4B has 8 query heads on 4 KV heads: of 8 ranks each has 1 and 1."""
    layer = rank_model(load_model("gemma-3-4b"), 8).text.stack.kinds[0]
    attend = next(block for block in layer if isinstance(block, Attend))
    assert (attend.heads, attend.kv_heads) == (1, 1)
    cost, alone = (estimate("gemma-3-4b", A100, tp=tp) for tp in (8, 1))
    assert cost.memory.kv_cache_bytes * 4 == alone.memory.kv_cache_bytes


def test_a_shared_branch_ends_in_one_sum() -> None:
    """Two per layer, of as many rows as the hidden state has, whatever the MLP is."""
    for name in ("llava-1.5-7b", "gemma-3-4b", "qwen3-vl-30b-a3b"):
        for layer in rank_model(load_model(name), 2).text.stack.kinds:
            sums = [block for block in layer if isinstance(block, Exchange)]
            assert [(block.kind, block.width, block.ranks) for block in sums] == [
                ("all_reduce", load_model(name).text.hidden_size, 2)
            ] * 2


@pytest.mark.parametrize("pp", [2, 3, 8])
@pytest.mark.parametrize("name", ["llava-1.5-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_pipeline_stages_hold_the_model_once(name: str, pp: int) -> None:
    model = load_model(name)
    cut = stages_of(Parallel(pp=pp), model)
    assert sum(pipeline_stage(model, *layers).parameters for layers in cut) == model.parameters


def test_stages_send_the_hidden_state_on() -> None:
    """40 + 576 rows of 4096 numbers of 2 bytes, once for each border; then one row a step."""
    cost = estimate("llava-1.5-7b", A100, output_tokens=3, pp=4)
    assert cost.communication["bytes"] == {"send": 3 * (616 + 3) * 4096 * 2}
    # A method that drops tokens before a border sends fewer.
    less = estimate("llava-1.5-7b", A100, pp=4, method="fastv", keep=64, layer=2)
    assert less.communication["bytes"] == {"send": 3 * (40 + 64) * 4096 * 2}


def test_replicas_share_a_batch() -> None:
    one, shared = (
        estimate("llava-1.5-7b", A100, batch_size=3),
        estimate("llava-1.5-7b", A100, batch_size=9, dp=4),
    )
    assert shared.totals.time_s == one.totals.time_s
    assert shared.memory == one.memory
    assert shared.communication is None


def test_flops_of_the_ranks_are_those_of_the_model() -> None:
    whole, half = (estimate("llava-1.5-7b", A100, text_tokens=40, tp=tp) for tp in (1, 2))
    assert half.stages["prefill"].flops * 2 == whole.stages["prefill"].flops
    # Every rank runs the tower and the bridge.
    for stage in ("vision", "projector"):
        assert half.stages[stage].flops == whole.stages[stage].flops


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("execution", ["fused", "hf-eager"])
def test_norms_that_ranks_share_by_sequence(name: str, execution: str) -> None:
    """The products stay; norms and adds have half the rows, and the stream half the memory."""
    given = {"execution": execution, "text_tokens": 8, "batch_size": 2, "calibration": "none"}
    try:
        whole = estimate(name, A100, tp=2, **given)
    except InvalidInputError as error:
        assert "does not divide" in str(error)
        return
    half = estimate(name, A100, tp=2, norms="sequence", **given)
    assert half.stages["vision"] == whole.stages["vision"]
    assert half.stages["prefill"].flops == whole.stages["prefill"].flops
    assert half.stages["prefill"].activation_write_bytes < (
        whole.stages["prefill"].activation_write_bytes
    )
    mine, theirs = (
        sum(row.activation_write_bytes for row in cost.ops if row.name.startswith("input_norm"))
        for cost in (half, whole)
    )
    assert mine * 2 == theirs
    # What a layer summed up is scattered behind it, and as much gathered in front of the next.
    assert half.communication is not None
    assert whole.communication is not None
    sent, before = half.communication["bytes"], whole.communication["bytes"]
    summed = before["all_reduce"] - sent.get("all_reduce", 0)
    assert sent["reduce_scatter"] == summed > 0
    assert sent["all_gather"] >= before["all_gather"] + summed
    phases = [
        {phase.name: phase.activation_bytes for phase in cost.memory.timeline}
        for cost in (half, whole)
    ]
    assert all(phases[0][each] <= phases[1][each] for each in phases[1])
    assert any(phases[0][each] < phases[1][each] for each in phases[1] if "layers" in each)


def test_one_device_has_nobody_to_share_its_norms_with() -> None:
    one, alone = (
        estimate("llava-1.5-7b", A100, norms=norms) for norms in ("sequence", "replicated")
    )
    assert one.totals == alone.totals


@pytest.mark.parametrize("tp", [1, 2])
def test_a_tower_on_a_device_of_its_own(tp: int) -> None:
    """576 tokens of 4096 numbers of 2 bytes, for each of 3 samples and to each rank."""
    given = {"text_tokens": 8, "batch_size": 3, "output_tokens": 2, "tp": tp}
    whole = estimate("llava-1.5-7b", A100, **given)
    apart = estimate("llava-1.5-7b", A100, tower="apart", **given)
    said = apart.communication
    assert said is not None
    assert (said["devices"], said["bytes"]["send"]) == (tp + 1, tp * 3 * 576 * 4096 * 2)
    assert apart.stages["projector"].link_s > whole.stages["projector"].link_s
    for stage in ("vision", "prefill", "decode"):
        assert apart.stages[stage] == whole.stages[stage]
    # The fullest device is one of the language model's; no rank holds tower and bridge.
    model = load_model("llava-1.5-7b")
    assert model.vision is not None
    assert model.projector is not None
    elsewhere = 2 * (model.vision.parameters + model.projector.parameters)
    assert whole.memory.weight_bytes - apart.memory.weight_bytes == elsewhere
    assert "+ 1 for the tower" in apart.assumptions["devices"]
    asked = {**given, "tp": [tp], "tower": "apart"}
    (row,) = sweep("llava-1.5-7b", A100, reduce=top_k(1, "device_s"), **asked).to_dict("records")
    assert row["device_s"] == pytest.approx(apart.totals.time_s * (tp + 1) / 3)


def test_the_tower_s_device_may_be_the_fullest() -> None:
    """512 pictures of which the language model, on 8 ranks, sees a token each."""
    cost = estimate(
        "llava-1.5-7b", A100, batch_size=512, text_tokens=8, method="divprune", keep=1, tp=8,
        tower="apart",
    )  # fmt: skip
    assert cost.memory.weight_bytes == 2 * tower_alone(load_model("llava-1.5-7b")).parameters
    assert cost.memory.timeline[0].name == "vision"
    assert cost.memory.kv_cache_bytes == 0


@pytest.mark.parametrize("name", list_models())
def test_tower_and_language_model_are_the_model(name: str) -> None:
    model = load_model(name)
    assert tower_alone(model).parameters + without_tower(model).parameters == model.parameters


def test_a_tower_of_its_own_needs_a_tower_and_a_question_that_knows_it() -> None:
    with pytest.raises(InvalidInputError, match="and llama-2-7b has none"):
        estimate("llama-2-7b", A100, text_tokens=8, tower="apart")
    with pytest.raises(InvalidInputError, match="give tower='replicated'"):
        serve("llava-1.5-7b", A100, output_tokens=8, tower="apart")


@pytest.mark.parametrize("name", ["llava-1.5-7b", "qwen2.5-vl-7b", "internvl3-8b", "gemma-3-4b"])
def test_a_tower_that_ranks_share(name: str) -> None:
    """Half the layers' FLOPs; the patches, and what stands behind the layers, stay whole."""
    whole, half = (
        estimate(name, A100, tp=2, tower=tower, text_tokens=8)
        for tower in ("replicated", "sharded")
    )
    assert half.stages["prefill"] == whole.stages["prefill"]
    vision = load_model(name).vision
    assert vision is not None
    around = {
        block.name
        for block in (*vision.stack.before, *vision.stack.after)
        if hasattr(block, "name")
    }
    rows = [row for row in whole.ops if row.stage == "vision"]
    shared = sum(
        row.flops for row in rows if row.op_class != "all_reduce" and row.name not in around
    )
    assert half.stages["vision"].flops == whole.stages["vision"].flops - shared / 2
    sums = [row for row in half.ops if row.stage == "vision" and row.op_class == "all_reduce"]
    assert sum(row.count for row in sums) == 2 * whole.assumptions["vision_layers"]


@settings(max_examples=25, deadline=None)
@given(
    tp=st.sampled_from([1, 2, 4, 8]), pp=st.sampled_from([1, 2, 5]), dp=st.sampled_from([1, 3]),
    batch=st.sampled_from([1, 6]), execution=st.sampled_from(["fused", "hf-eager", "cuda-graph"]),
    calibration=st.sampled_from(["auto", None]),
    tower=st.sampled_from(["replicated", "sharded", "apart"]),
    norms=st.sampled_from(["replicated", "sequence"]),
)  # fmt: skip
def test_a_sweep_is_an_estimate_and_more_devices_hold_less(
    tp: int, pp: int, dp: int, batch: int, execution: str, calibration: str | None, tower: str,
    norms: str,
) -> None:  # fmt: skip
    given_ = {"batch_size": batch, "output_tokens": 2, "execution": execution,
              "calibration": calibration, "tower": tower, "norms": norms}  # fmt: skip
    cost = estimate("llava-1.5-7b", A100, tp=tp, pp=pp, dp=dp, **given_)
    (row,) = sweep("llava-1.5-7b", A100, tp=[tp], pp=pp, dp=dp, **given_).to_dict("records")
    for name in (
        "flops",
        "kernels",
        "time_s",
        "time_low_s",
        "time_high_s",
        "ideal_time_s",
        "ttft_s",
    ):
        assert row[name] == pytest.approx(cost.totals[name], rel=1e-12)
    assert row["peak_memory_bytes"] == pytest.approx(cost.memory.peak_memory_bytes)
    assert row["bound"] == cost.totals.bound
    assert row["fits"] == cost.memory.fits
    assert cost.totals.time_low_s <= cost.totals.time_s <= cost.totals.time_high_s
    assert cost.totals.ideal_time_s <= cost.totals.time_s
    alone = estimate("llava-1.5-7b", A100, **(given_ | {"tower": "replicated"}))
    assert cost.memory.peak_memory_bytes <= alone.memory.peak_memory_bytes
    said = cost.communication
    assert (said is None) == (tp * pp == 1 and tower != "apart")
    if said is not None:
        assert sum(row.time_s for row in cost.ops if row.bound == "link") == pytest.approx(
            said["time_s"]
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tp": 3}, "tp=3 does not divide the 32 attention heads"),
        ({"pp": 33}, "pp=33 is more stages than the 32 layers"),
        ({"tp": 0}, "tp must be a whole number from 1"),
        ({"tp": 2, "hardware": "cpu-generic-avx2-8c"}, "no link of cpu-generic-avx2-8c"),
        ({"tp": 16, "hardware": "nvidia-l40s"}, "no rate of the network of nvidia-l40s"),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments: dict[str, Any], words: str) -> None:
    arguments = {"hardware": A100} | arguments
    with pytest.raises(VlmRooflineError, match=words):
        estimate("llava-1.5-7b", **arguments)


def test_the_document_says_what_is_sent() -> None:
    document = estimate("llava-1.5-7b", A100, tp=2, dp=2, batch_size=2).to_dict()
    said = document["communication"]
    assert said["devices"] == 4
    assert said["node"] == "NVIDIA DGX A100"
    assert "overlap" in document["assumptions"]
    assert "communication" not in estimate("llava-1.5-7b", A100).to_dict()
