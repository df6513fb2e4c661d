"""A prompt whose beginning is in the KV cache: FLOPs as torch counts them, and what follows."""

import itertools

import pytest
import torch
from counted_flops import counted

from costmodel import estimate, sweep
from costmodel.models import config_dict
from hardware_specs.errors import InvalidInputError
from token_reduction.caches import cache_keyword, cache_of

A100 = "nvidia-a100-sxm4-80gb"


def counted_continuation(name: str, cached: int, fresh: int) -> int:
    """Run a prefill of `cached` tokens, then count one of `fresh` tokens on its cache."""
    import transformers

    language = transformers.AutoConfig.for_model(**config_dict(name)).text_config
    language.num_hidden_layers = 2
    if getattr(language, "layer_types", None):
        language.layer_types = language.layer_types[:2]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            language, attn_implementation="sdpa", dtype=torch.bfloat16
        ).eval()

    def run(tokens: int, **past: object) -> object:
        rows = torch.empty(1, tokens, language.hidden_size, device="meta", dtype=torch.bfloat16)
        return model(inputs_embeds=rows, use_cache=True, logits_to_keep=1, **past)

    with torch.no_grad():
        past = cache_of(run(cached))
    return counted(lambda: run(fresh, **{cache_keyword(): past}))[0]


@pytest.mark.usefixtures("meta_tensors")
@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-onevision-7b"])
@pytest.mark.parametrize(("cached", "fresh"), [(35, 581), (616, 40), (615, 1)])
def test_flops_equal_the_counter(name: str, cached: int, fresh: int) -> None:
    visual = 576
    cost = estimate(
        f"{name}@layers=2", A100, visual_tokens=visual, text_tokens=cached + fresh - visual,
        cached_tokens=cached,
    )  # fmt: skip
    assert cost.stages["prefill"].flops == counted_continuation(name, cached, fresh)


def test_an_image_in_the_cache_is_not_encoded() -> None:
    first = estimate("llava-1.5-7b", A100, text_tokens=80)
    again = estimate("llava-1.5-7b", A100, text_tokens=80, cached_tokens=616)
    assert [again.stages[s].flops for s in ("vision", "projector", "reduction")] == [0, 0, 0]
    # Of 656 keys in each layer 616 are not written again, and all are read.
    assert (
        again.stages["prefill"].kv_write_bytes * 656 == first.stages["prefill"].kv_write_bytes * 40
    )
    assert again.stages["prefill"].kv_read_bytes == first.stages["prefill"].kv_read_bytes
    assert again.kv_bytes_by_layer == first.kv_bytes_by_layer
    assert "not encoded again" in again.assumptions["cached_prefix"]
    assert again.memory.kv_cache_bytes == first.memory.kv_cache_bytes


def test_text_before_the_image_leaves_the_tower_running() -> None:
    first = estimate("llava-1.5-7b", A100)
    again = estimate("llava-1.5-7b", A100, cached_tokens=35)
    assert again.stages["vision"] == first.stages["vision"]
    assert again.stages["prefill"].flops < first.stages["prefill"].flops


def test_reduced_images_stay_reduced_in_the_cache() -> None:
    """FastV after layer 2: 64 tokens left, so that 104 keys of the cache and 40 new ones are seen there."""
    given = {"text_tokens": 80, "method": "fastv", "keep": 64, "layer": 2}
    cost = estimate("llava-1.5-7b", A100, cached_tokens=616, **given)
    assert cost.stages["reduction"].kernels == 0
    d, h, f, v = 4096, 4096, 11008, 32064
    dense = 40 * (4 * d * h + 3 * d * f) * 2 * 32
    attention = 4 * h * 40 * (2 * 656 + 30 * 144)
    assert cost.stages["prefill"].flops == dense + attention + 2 * d * v


def test_a_prefix_before_the_image_goes_with_a_method() -> None:
    given = {"text_tokens": 80, "method": "divprune", "keep": 64}
    cost = estimate("llava-1.5-7b", A100, cached_tokens=35, **given)
    whole = estimate("llava-1.5-7b", A100, **given)
    assert cost.stages["reduction"] == whole.stages["reduction"]
    assert (
        cost.stages["prefill"].kv_write_bytes * 144 == whole.stages["prefill"].kv_write_bytes * 109
    )


@pytest.mark.parametrize("cached", [0, 1, 35, 40, 575, 576, 600, 615])
@pytest.mark.parametrize("execution", ["fused", "hf-eager"])
def test_a_sweep_has_the_same_numbers(cached: int, execution: str) -> None:
    given = {"batch_size": 3, "output_tokens": 4, "execution": execution}
    row = sweep(
        "llava-1.5-7b", A100, cached_tokens=[0, cached], text_tokens=[40, 80], **given
    ).iloc[1]
    cost = estimate("llava-1.5-7b", A100, cached_tokens=cached, **given)
    assert row["cached_tokens"] == cached
    assert row["flops"] == cost.totals.flops
    assert row["ttft_s"] == pytest.approx(cost.totals.ttft_s, rel=1e-12)
    assert row["peak_memory_bytes"] == pytest.approx(cost.memory.peak_memory_bytes, rel=1e-12)


def test_more_cached_tokens_cost_less() -> None:
    table = sweep("llava-1.5-7b", A100, cached_tokens=list(range(0, 616, 5)), calibration="none")
    for name in ("flops", "executed_flops", "ttft_s"):
        assert (table[name].diff().dropna() <= 0).all()
    # Measured silicon is not monotonic: a few rows more may choose a quicker kernel.
    silicon = sweep("llava-1.5-7b", A100, cached_tokens=list(range(0, 616, 5)))["ttft_s"]
    assert (silicon.diff() / silicon).dropna().max() < 0.01


def test_what_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="fewer than the 616 tokens of the prompt, not 616"):
        estimate("llava-1.5-7b", A100, cached_tokens=616)
    with pytest.raises(InvalidInputError, match="divprune reduces images as a whole"):
        estimate("llava-1.5-7b", A100, cached_tokens=300, method="divprune")
    with pytest.raises(InvalidInputError, match="means nothing to the convention"):
        estimate("llava-1.5-7b", A100, cached_tokens=8, convention="fastv")


@pytest.mark.parametrize("execution", ["fused", "hf-eager"])
@pytest.mark.parametrize("name", ["gemma-3-4b", "qwen3-vl-2b"])
def test_what_layers_do_to_visual_tokens_is_done_to_those_that_are_not_cached(
    name: str, execution: str
) -> None:
    def cost(cached: int):
        return estimate(name, A100, text_tokens=40, cached_tokens=cached, execution=execution)

    def added(cached: int) -> float:
        return sum(op.hbm_bytes for op in cost(cached).ops if op.name == "deepstack[deepstack]")

    visual = cost(0).inputs["visual_tokens"]
    # Text before the image leaves the image as it was; an image in the cache is added to no more.
    assert added(30) == added(0)
    assert added(visual) == 0
    parts = [cost(cached).stages["prefill"] for cached in (0, 30, visual // 2, visual, visual + 30)]
    for more, fewer in itertools.pairwise(parts):
        assert fewer.executed_flops < more.executed_flops
        assert fewer.flops < more.flops
