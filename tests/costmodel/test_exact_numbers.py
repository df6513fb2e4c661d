"""LLaVA-1.5 counted by hand, to the unit."""

import json

import pytest

from costmodel import estimate, list_models, load_model
from costmodel.evaluate import Context
from costmodel.models import config_dict
from costmodel.request import Request
from costmodel.scenario import Scenario

A100 = "nvidia-a100-sxm4-80gb"


def test_stages_of_llava_7b() -> None:
    cost = estimate("llava-1.5-7b", A100, visual_tokens=576, text_tokens=40, output_tokens=1)
    # conv 2*576*588*1024; 24 layers of 2*577*(4*1024^2 + 2*1024*4096) and 4*577^2*1024
    conv = 2 * 576 * (3 * 14 * 14) * 1024
    linear = 24 * 2 * 577 * (4 * 1024**2 + 2 * 1024 * 4096)
    attention = 24 * 4 * 577**2 * 1024
    assert (conv, linear, attention) == (693_633_024, 348_496_330_752, 32_728_252_416)
    assert cost.stages["vision"].flops == conv + linear + attention == 381_918_216_192
    # 576 rows through 1024 -> 4096 -> 4096
    assert cost.stages["projector"].flops == 2 * 576 * (1024 * 4096 + 4096**2) == 24_159_191_040
    body_linear = 32 * 2 * 616 * (4 * 4096**2 + 3 * 4096 * 11008)
    body_attention = 32 * 4 * 616**2 * 4096
    assert (body_linear, body_attention) == (7_978_438_623_232, 198_944_227_328)
    head = 2 * 4096 * 32064
    assert cost.stages["prefill"].flops == body_linear + body_attention + head
    # one token over 616 cached ones and itself
    step = 32 * (2 * (4 * 4096**2 + 3 * 4096 * 11008) + 4 * 617 * 4096) + head
    assert cost.stages["decode"].flops == step == 13_538_164_736
    assert cost.totals.flops - step == 8_583_722_926_080


def test_13b() -> None:
    flops = estimate("llava-1.5-13b", A100).stages["prefill"].flops
    assert round(flops / 1e9, 1) == 15_942.5


@pytest.mark.parametrize(
    ("visual", "gflop"),
    [
        (576, 8177.6),
        (288, 4304.9),
        (144, 2401.2),
        (128, 2191.0),
        (64, 1352.9),
        (36, 987.6),
        (16, 727.2),
        (1, 532.2),
    ],
)
def test_prefill_by_visual_tokens(visual: int, gflop: float) -> None:
    cost = estimate("llava-1.5-7b", A100, visual_tokens=visual)
    assert round(cost.stages["prefill"].flops / 1e9, 1) == gflop


def test_llama_all_logits() -> None:
    cost = estimate("llama-2-7b", A100, visual_tokens=0, text_tokens=616, logits="all")
    assert cost.totals.flops == 8_338_863_554_560
    assert cost.stages["vision"].flops == 0


def test_kv_cache_of_616_tokens() -> None:
    # 2 (K, V) x 32 layers x 4096 x 2 B x 616
    assert estimate("llava-1.5-7b", A100).memory.kv_cache_bytes == 322_961_408


def test_useful_layers_skip_the_last_one() -> None:
    all_layers = estimate("llava-1.5-7b", A100).stages["vision"].flops
    useful = estimate("llava-1.5-7b", A100, vision_layers="useful").stages["vision"].flops
    # one layer of 577 tokens: 15.9 GFLOP that nobody reads
    layer = 2 * 577 * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * 577**2 * 1024
    assert all_layers - useful == layer
    assert round(layer / 1e9, 1) == 15.9


@pytest.mark.parametrize("execution", ["fused", "hf-eager"])
@pytest.mark.parametrize("name", [*list_models(), "with biases"])
def test_a_prefill_reads_every_weight_once(name: str, execution: str, tmp_path) -> None:
    """All of the language model's parameters but the embedding, of which it looks rows up.

    A tied embedding is read as the head. Of E experts, n tokens that draw k each meet
    E (1 - (1 - k / E)^n) different ones.
    """
    source: object = name
    if name == "with biases":
        raw = config_dict("llava-1.5-7b")
        raw["text_config"].update(attention_bias=True, mlp_bias=True)
        (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        source = tmp_path
    text = load_model(source).text
    cost = estimate(source, A100, visual_tokens=0, text_tokens=9, execution=execution)
    looked_up = 9 * text.hidden_size * (load_model(source).vision is None)
    read = text.parameters - text.embedding_parameters * (not text.tie_embeddings) + looked_up
    if text.experts:
        share = (1 - text.chosen_experts / text.experts) ** 9
        expert = 3 * text.hidden_size * text.expert_size
        read -= text.num_layers * text.experts * share * expert
    assert cost.stages["prefill"].weight_bytes == pytest.approx(2 * read, rel=1e-12)
    assert cost.memory.weight_bytes == 2 * load_model(source).parameters


@pytest.mark.parametrize(("precision", "kernels"), [("fp16", 1299), ("fp32", 1169)])
def test_eager_kernels(precision: str, kernels: int) -> None:
    """FP32 has no casts around its norms: 2 fewer kernels in each of the 65."""
    cost = estimate("llava-1.5-7b", A100, execution="hf-eager", precision=precision)
    assert cost.stages["prefill"].kernels == kernels
    assert cost.stages["vision"].kernels == 342


@pytest.mark.parametrize(
    ("precision", "kernels", "per_score"), [("fp32", 1, 8), ("fp16", 2, 12), ("bf16", 3, 20)]
)
def test_eager_softmax_runs_in_float32(precision: str, kernels: int, per_score: int) -> None:
    """FP32 4 + 4; FP16 2 + 4 and 4 + 2; BF16 cast up 2 + 4, softmax 4 + 4, cast back 4 + 2."""
    cost = estimate(
        "llava-1.5-7b", A100, execution="hf-eager", attention="eager", precision=precision
    )
    ops = [op for op in cost.ops if op.name.startswith("softmax") and op.stage == "prefill"]
    assert sum(op.kernels for op in ops) == 32 * kernels
    assert sum(op.hbm_bytes for op in ops) == 32 * 32 * 616**2 * per_score


@pytest.mark.parametrize(
    ("sequence", "pointwise_gb", "body_gb"), [(616, 12.9, 29.6), (2976, 62.4, 93.4)]
)
def test_eager_traffic(sequence: int, pointwise_gb: float, body_gb: float) -> None:
    """Norms, rotations, SwiGLU, residuals, casts and concatenation against all of the LLM's bytes."""
    context = Context(Request("llava-1.5-7b", A100, precision="bf16", execution="hf-eager"))
    scenario = Scenario(sequence - 40, 576, 1, 40, 1, 0)
    ops = context.stage_ops(scenario, context.method_plan(scenario))["prefill"]
    pointwise = sum(op.hbm_bytes * op.count for op in ops if op.shape is None)
    body = sum(op.hbm_bytes * op.count for op in ops if op.name != "lm_head")
    assert round(pointwise / 1e9, 1) == pointwise_gb
    assert round(body / 1e9, 1) == body_gb
