from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.conventions import DecoderShape, get_convention, list_conventions
from costmodel.conventions.divprune import TEXT_LENGTHS
from costmodel.conventions.formula import FormulaRule, layer_terms
from costmodel.conventions.shortv import frozen_layer_flops
from costmodel.quantities import COST_KEYS, MEMORY_KEYS, STAGES
from hardware_specs.errors import InvalidInputError, UnknownConventionError

TOTAL_KEYS = (*COST_KEYS, "ttft_s", "tpot_s")
SHAPE_7B = DecoderShape(4096, 11008, 32, 32, 32, 32000)
SHAPE_13B = DecoderShape(5120, 13824, 40, 40, 40, 32000)
SMALL = DecoderShape(8, 12, 3, 4, 2, 10)
CLOSED_FORMS = ("divprune", "fastv", "llava-mini", "pyramiddrop", "shortv", "sparsevlm")


def flops(name, shape=SMALL, **arguments):
    return get_convention(name).evaluate(shape, **arguments).totals.flops


def test_mac_formulas_by_hand():
    # 616 tokens, width 4096, FFN 11008, one layer:
    #   4 * 616 * 4096^2          =  41,339,060,224
    #   2 * 616^2 * 4096          =   3,108,503,552
    #   616 * 4096 * 11008        =  27,774,681,088   per FFN matrix
    for matrices in (2, 3):
        terms = layer_terms(FormulaRule(matrices, 1, ()), 616, 4096, 11008)
        assert terms == (41_339_060_224, 3_108_503_552, matrices * 27_774_681_088)


def test_twice_mac3_is_the_language_model_that_torch_counts():
    # LLaVA-1.5-7B, 576 + 40 tokens, without the output head: linear 7,978,438,623,232 and attention
    # 198,944,227,328 FLOP by torch.utils.flop_counter.
    assert flops("shortv", SHAPE_7B, visual_tokens=576, text_tokens=40) == 8_177_382_850_560


def test_small_model_by_hand():
    # d 8, f 12, 3 layers, 5 visual + 2 text = 7 tokens: 4*7*64 = 1792, 2*49*8 = 784, 7*8*12 = 672.
    assert flops("fastv", visual_tokens=5, text_tokens=2) == 3 * (1792 + 784 + 2 * 672)
    assert flops("sparsevlm", visual_tokens=5, text_tokens=2) == 3 * (1792 + 784 + 3 * 672)
    assert flops("shortv", visual_tokens=5, text_tokens=2) == 6 * (1792 + 784 + 3 * 672)
    # Image tokens only: 4*5*64 = 1280, 2*25*8 = 400, 3*5*8*12 = 1440.
    assert flops("pyramiddrop", visual_tokens=5, text_tokens=2) == 3 * (1280 + 400 + 1440)


def test_divprune_averages_over_its_eleven_prompts():
    one_by_one = [flops("divprune", visual_tokens=5, text_tokens=t) for t in TEXT_LENGTHS]
    assert flops("divprune", visual_tokens=5) == pytest.approx(sum(one_by_one) / 11, rel=1e-15)
    # Attention is quadratic, so the mean of counts is not the count of the mean length.
    mean = sum(TEXT_LENGTHS) / 11
    assert flops("divprune", visual_tokens=5) > flops("divprune", visual_tokens=5, text_tokens=mean)


def test_text_lengths_of_the_authors_are_the_defaults():
    for name, text in (("fastv", 36), ("sparsevlm", 119), ("shortv", 64), ("llava-mini", 40)):
        assert get_convention(name).default_text_tokens == text
        assert flops(name, visual_tokens=9) == flops(name, visual_tokens=9, text_tokens=text)


def test_a_schedule_is_the_sum_of_its_layers():
    per_layer = [
        flops("shortv", DecoderShape(8, 12, 1, 4, 2, 10), visual_tokens=v) for v in (9, 4, 1)
    ]
    scheduled = flops("shortv", visual_tokens=9, llm_visual_tokens_per_layer=[9, 4, 1])
    assert scheduled == sum(per_layer)


def test_frozen_layer_by_hand():
    # d 8, f 12, 3 visual (frozen), 2 text: text 2*2*(4*64 + 3*96) = 2176; keys and values of the
    # visual tokens 4*3*64 = 768; scores and values of 2 queries over 5 keys 4*2*5*8 = 320.
    assert frozen_layer_flops(SMALL, 3, 2) == 2176 + 768 + 320


def test_a_frozen_layer_without_visual_tokens_is_a_plain_layer():
    one_layer = DecoderShape(8, 12, 1, 4, 2, 10)
    assert frozen_layer_flops(SMALL, 0, 7) == flops(
        "shortv", one_layer, visual_tokens=0, text_tokens=7
    )


def test_llava_mini_counts_the_encoders():
    from costmodel import load_model

    model = load_model("llava-1.5-7b")
    result = get_convention("llava-mini").evaluate(model, visual_tokens=576)
    # Patch convolution 2*576*1024*3*14^2 = 693,633,024; 24 layers of 577 tokens, each
    # 2*577*(4*1024^2 + 2*1024*4096): 348,496,330,752; no attention.
    assert result.stages["vision"]["flops"] == 693_633_024 + 348_496_330_752
    assert result.stages["projector"]["flops"] == 2 * 576 * (1024 * 4096 + 4096 * 4096)
    assert result.stages["prefill"]["flops"] == 8_177_382_850_560
    assert result.totals.flops == 693_633_024 + 348_496_330_752 + 24_159_191_040 + (
        8_177_382_850_560
    )
    assert [op.stage for op in result.ops[:2]] == ["vision", "projector"]


def test_llava_mini_without_vision_leaves_it_undefined():
    result = get_convention("llava-mini").evaluate(SMALL, visual_tokens=5)
    assert result.stages["vision"]["flops"] is None
    assert result.totals.flops == result.stages["prefill"]["flops"]


def test_several_crops_cost_several_towers():
    from costmodel import load_model

    one = get_convention("llava-mini").evaluate(load_model("llava-1.5-7b"), visual_tokens=576)
    five = get_convention("llava-mini").evaluate(
        load_model("llava-next-vicuna-7b"), visual_tokens=2880
    )
    assert five.stages["vision"]["flops"] == 5 * one.stages["vision"]["flops"]
    assert five.stages["projector"]["flops"] == 5 * one.stages["projector"]["flops"]


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_what_is_not_defined_is_none_and_never_zero(name):
    result = get_convention(name).evaluate(SMALL, visual_tokens=5, output_tokens=4)
    assert list(result.stages) == list(STAGES)
    for stage, cost in result.stages.items():
        undefined = {key for key in COST_KEYS if key != "flops" or stage != "prefill"}
        assert all(cost[key] is None for key in undefined)
    assert all(result.totals[key] is None for key in TOTAL_KEYS if key != "flops")
    assert all(getattr(result.memory, key) is None for key in MEMORY_KEYS)
    assert all(op.hbm_bytes is None and op.time_s is None for op in result.ops)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_assumptions_say_what_is_counted(name):
    convention = get_convention(name)
    result = convention.evaluate(SMALL, visual_tokens=5)
    for key in (
        "formula",
        "counted_as_flop",
        "ffn_matrices",
        "text",
        "vision",
        "lm_head",
        "source",
    ):
        assert result.assumptions[key]
    assert "arXiv" in convention.source
    assert (convention.operations_per_mac == 1) == (
        "multiply-accumulates printed" in result.assumptions["counted_as_flop"]
    )


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_op_rows_add_up_to_the_totals(name):
    result = get_convention(name).evaluate(SMALL, visual_tokens=5)
    assert sum(op.flops for op in result.ops) == pytest.approx(result.totals.flops, rel=1e-15)


@given(
    name=st.sampled_from(CLOSED_FORMS),
    visual=st.integers(0, 5000),
    text=st.integers(0, 5000),
    batch=st.integers(1, 64),
)
def test_linear_in_batch(name, visual, text, batch):
    one = flops(name, visual_tokens=visual, text_tokens=text)
    assert flops(name, visual_tokens=visual, text_tokens=text, batch_size=batch) == batch * one


@given(name=st.sampled_from(CLOSED_FORMS), visual=st.integers(0, 5000), more=st.integers(1, 1000))
def test_more_visual_tokens_cost_more(name, visual, more):
    assert flops(name, visual_tokens=visual) < flops(name, visual_tokens=visual + more)


@given(name=st.sampled_from(CLOSED_FORMS), visual=st.integers(0, 5000))
def test_a_flat_schedule_is_no_schedule(name, visual):
    flat = flops(name, visual_tokens=visual, llm_visual_tokens_per_layer=[visual] * 3)
    assert flat == pytest.approx(flops(name, visual_tokens=visual), rel=1e-15)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_no_tokens_cost_nothing(name):
    assert flops(name, visual_tokens=0, text_tokens=0) == 0


@given(
    name=st.sampled_from(CLOSED_FORMS),
    visual=st.lists(st.integers(0, 4000), min_size=1, max_size=5),
    text=st.integers(0, 200),
    batch=st.integers(1, 8),
)
def test_arrays_give_what_numbers_give(name, visual, text, batch):
    vector = flops(
        name, SHAPE_7B, visual_tokens=np.array(visual), text_tokens=text, batch_size=batch
    )
    scalars = [
        flops(name, SHAPE_7B, visual_tokens=v, text_tokens=text, batch_size=batch) for v in visual
    ]
    assert vector.tolist() == scalars


def test_schedules_may_hold_arrays():
    first, later = np.array([576, 288]), np.array([64, 32])
    vector = flops("shortv", visual_tokens=first, llm_visual_tokens_per_layer=[first, first, later])
    assert vector.tolist() == [
        flops("shortv", visual_tokens=v, llm_visual_tokens_per_layer=[v, v, w])
        for v, w in zip([576, 288], [64, 32], strict=True)
    ]


def test_narrow_integer_arrays_do_not_overflow():
    narrow = flops("shortv", SHAPE_13B, visual_tokens=np.array([576], dtype=np.int16))
    assert narrow.tolist() == [flops("shortv", SHAPE_13B, visual_tokens=576)]


def test_numbers_stay_exact_integers():
    for value in (576, np.int32(576), np.array(576)):
        assert type(flops("shortv", SHAPE_7B, visual_tokens=value)) is int


def test_grouped_query_attention_is_ignored_by_all():
    grouped = DecoderShape(4096, 14336, 32, 32, 8, 32000)
    full = DecoderShape(4096, 14336, 32, 32, 32, 32000)
    for name in CLOSED_FORMS:
        assert flops(name, grouped, visual_tokens=576) == flops(name, full, visual_tokens=576)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "576", None, True, [1, -1]])
def test_bad_counts_are_named(bad):
    with pytest.raises(InvalidInputError, match="visual_tokens"):
        flops("fastv", visual_tokens=bad)


@pytest.mark.parametrize("bad", [0, -2, "4", float("nan")])
def test_bad_batches_are_named(bad):
    with pytest.raises(InvalidInputError, match="batch_size"):
        flops("fastv", visual_tokens=5, batch_size=bad)


def test_a_schedule_of_the_wrong_length_is_refused():
    with pytest.raises(InvalidInputError, match=r"2 entries.*3 layers"):
        flops("fastv", visual_tokens=5, llm_visual_tokens_per_layer=[5, 5])


def test_a_model_without_the_numbers_is_refused():
    with pytest.raises(InvalidInputError, match="load_model"):
        flops("fastv", "llava-1.5-7b", visual_tokens=5)


def test_unknown_names_show_near_matches():
    with pytest.raises(UnknownConventionError, match="did you mean llmviewer-2024-02"):
        get_convention("llmviewer")


def test_every_convention_is_found_and_named_after_itself():
    assert len(list_conventions()) == 8
    for name in list_conventions():
        assert get_convention(name).name == name
