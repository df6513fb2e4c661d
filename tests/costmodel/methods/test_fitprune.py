"""FitPrune: lengths, visual FLOPs and own FLOPs of the shipped schemes."""

import pytest

from costmodel import break_even, estimate, get_method
from costmodel.methods.fitprune import shipped_schemes, tokens_by_layer
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_fitprune(own) -> None:
    # Two weighted sums over the rows of a 616 x 616 map in the first layer, then of shorter ones.
    scheme = shipped_schemes()[60]
    before = [576 - sum(scheme[:layer]) for layer in range(32)]
    flops = sum(2 * 2 * (40 + n) ** 2 for n, deleted in zip(before, scheme, strict=True) if deleted)
    assert own("fitprune").flops == flops


def test_fitprune_keeps_the_keys_of_what_it_deletes(plan_of, llm_tokens) -> None:
    plan = plan_of(method="fitprune")
    scheme = shipped_schemes()[60]
    before = [576 - sum(scheme[:layer]) for layer in range(33)]
    assert llm_tokens(plan) == before[:32]
    for span, after in zip(plan.llm_spans, before[1:], strict=True):
        assert (span.tokens if span.out_tokens is None else span.out_tokens) == after
    assert before[-1] == 576 - 449


@pytest.mark.parametrize(
    ("reduction", "deleted", "ratio", "mean_keys"),
    [
        (50, 403, 0.5034, 301.8),
        (60, 449, 0.4030, 245.0),
        (70, 488, 0.3028, 187.9),
        (80, 514, 0.2031, 130.6),
        (90, 539, 0.1032, 72.8),
    ],
)
def test_fitprune_reaches_its_visual_flops(reduction, deleted, ratio, mean_keys) -> None:
    assert sum(shipped_schemes()[reduction]) == deleted
    # Nothing but image tokens: QKV and attention see n, o_proj and FFN n less what the layer deletes.
    kept = estimate(MODEL, A100, method="fitprune", keep=1 - reduction / 100, text_tokens=0)
    whole = estimate(MODEL, A100, text_tokens=0)
    assert any("no model runs it" in warning for warning in kept.warnings)
    head = 2 * 4096 * 32064
    share = (kept.stages["prefill"].flops - head) / (whole.stages["prefill"].flops - head)
    assert share == pytest.approx(ratio, abs=5e-5)
    entering = tokens_by_layer(shipped_schemes()[reduction], 32, 576)[:-1]
    assert sum(entering) / 32 == pytest.approx(mean_keys, abs=0.05)


def test_a_scheme_is_no_setting_of_fewer_tokens_than_it_deletes() -> None:
    method = get_method("fitprune", scheme=[5] * 32)
    assert break_even(MODEL, A100, method=method, most=170).visual_tokens[0] == 160
    with pytest.raises(InvalidInputError, match=r"deletes 155 tokens in 31 layers; .* 576 visual"):
        estimate(MODEL, A100, method=get_method("fitprune", scheme=[5] * 31))


def test_fitprune_scheme_stretches_to_another_model(plan_of, llm_tokens) -> None:
    plan = plan_of("llava-1.5-13b", method="fitprune")
    tokens = llm_tokens(plan)
    assert len(tokens) == 40
    assert tokens[0] == 576
    # The same share is left in the end, 127 of 576.
    assert plan.llm_spans[-1].out_tokens in (None, 127)
    assert tokens[-1] >= 127
