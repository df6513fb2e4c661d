"""What methods make of the lengths, place by place: hand-derived."""

import pytest

from costmodel import estimate

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("method", "keep", "tokens", "projected"),
    [
        ("prumerge", None, 33, 33),  # 5.5 % of 576 is 31.68, so 32, and one merged token
        ("prumerge", 40, 41, 41),
        ("prumerge", 0.1, 58, 58),  # int(57.6) + 1
        ("prumerge+", None, 144, 144),  # 25 % in all
        ("prumerge+", 32, 124, 124),  # grid 96, less 96 x 32/576 = 5.33 chosen before: 32 + 91 + 1
        ("divprune", None, 56, 576),  # round(56.448)
        ("divprune", 64, 64, 576),
        ("sequential", None, 40, 40),
        ("spatial", 36, 36, 36),
        ("m3", None, 36, 576),
        ("m3", 0.25, 144, 576),
        ("visionzip", None, 64, 64),  # 54 dominant, the class token among them, and 10 contextual
        ("visionzip", 192, 192, 192),
        ("fastervlm", None, 29, 576),  # round(28.8)
        ("fastervlm", 0.25, 144, 576),
        ("vispruner", None, 64, 576),
        ("cdpruner", None, 64, 576),
        ("cdpruner", 0.1, 58, 576),  # round(57.6)
        ("hired", None, 115, 576),  # int(115.2)
        ("hired", 0.0999, 57, 576),  # int(57.54)
    ],
)
def test_before_the_language_model(method, keep, tokens, projected, plan_of, llm_tokens) -> None:
    plan = plan_of(method=method, keep=keep)
    assert llm_tokens(plan) == [tokens] * 32
    assert plan.projected_tokens == projected
    assert plan.vision_spans is None


@pytest.mark.parametrize(
    ("method", "asked", "expected"),
    [
        ("fastv", {}, [576] * 2 + [288] * 30),
        ("fastv", {"keep": 0.25, "layer": 3}, [576] * 3 + [144] * 29),
        ("fastv", {"keep": 10, "layer": 0}, [10] * 32),
        ("vtw", {}, [576] * 16 + [0] * 16),
        ("vtw", {"layer": 15}, [576] * 15 + [0] * 17),
        ("divprune", {"layer": 2}, [576] * 2 + [56] * 30),
        ("pyramiddrop", {}, [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8),
        # int(.3 x 576) = 172, int(51.6) = 51, int(15.3) = 15
        ("pyramiddrop", {"keep": 0.3}, [576] * 8 + [172] * 8 + [51] * 8 + [15] * 8),
        ("pyramiddrop", {"keep": 100}, [576] * 8 + [100] * 24),
        # 8 pivots take 16 each, and 4 image pivots stay.
        ("dart", {}, [576] * 2 + [132] * 30),
        ("dart", {"keep": 129, "layer": 5}, [576] * 5 + [140] * 27),
        # 276 go, 82 of them into 9; of 309 109 go, 32 into 4; of 204 94 go, 28 into 3.
        ("sparsevlm", {}, [576] * 3 + [309] * 4 + [204] * 9 + [113] * 16),
        # 273 go, 81 into 9; of 312 202 go, 60 into 7; of 117 81 go, 24 into 3.
        ("sparsevlm", {"keep": 128}, [576] * 3 + [312] * 4 + [117] * 9 + [39] * 16),
        # 510 go, 153 into 16; of 82 52 go, 15 into 2; of 32 15 go, 4 into 1.
        ("sparsevlm", {"keep": 64}, [576] * 3 + [82] * 4 + [32] * 9 + [18] * 16),
        # Nothing goes where 40 are fewer than 66; then 10 go, 3 into 1; of 31 14 go, 4 into 1.
        ("sparsevlm(counts=[66,30,17])", {"visual": 40}, [40] * 7 + [31] * 9 + [18] * 16),
    ],
)
def test_inside_the_language_model(method, asked, expected, plan_of, llm_tokens) -> None:
    plan = plan_of(method=method, **asked)
    assert llm_tokens(plan) == expected
    assert plan.projected_tokens == expected[0] if expected[0] > 10 else 576


@pytest.mark.parametrize(
    ("method", "per_frame"),
    [("visionzip", 64), ("fastervlm", 14), ("vispruner", 65), ("cdpruner", 65)],
)
def test_a_videos_class_tokens_go_along(method, per_frame, plan_of, llm_tokens) -> None:
    # 8 frames of 257: one class token each beside what is kept of 256; VisionZip counts it.
    plan = plan_of("video-llava-7b", method=method, visual=2056, projected=2056, crops=8)
    assert llm_tokens(plan) == [8 * per_frame] * 32
    assert plan.projected_tokens == (8 * per_frame if method == "visionzip" else 2056)


@pytest.mark.parametrize(
    ("method", "keep", "entering", "projected"),
    [
        # 577 tokens less 13 per layer; features are read after 23 of 24 layers, less the class token.
        ("tome", None, [577 - 13 * layer for layer in range(24)], 277),
        # One more token, the cross token, which stays among the features: 279 - 1.
        ("crossget", None, [578 - 13 * layer for layer in range(24)], 278),
        # ceil(.7 x 576) = 404 and the fused one, then ceil(.7 x 405) = 284, then ceil(.7 x 285) = 200.
        ("evit", None, [577] * 4 + [406] * 3 + [286] * 3 + [202] * 14, 201),
    ],
)
def test_inside_the_vision_tower(method, keep, entering, projected, plan_of, llm_tokens) -> None:
    plan = plan_of(method=method, keep=keep)
    assert [span.tokens for span in plan.vision_spans] == entering
    assert plan.projected_tokens == projected
    assert llm_tokens(plan) == [projected] * 32


def test_tower_reduction_sits_between_attention_and_mlp(plan_of) -> None:
    span = plan_of(method="tome").vision_spans[0]
    assert (span.tokens, span.out_tokens, span.mlp_tokens) == (577, 577, 564)
    third = plan_of(method="evit").vision_spans[3]
    assert (third.tokens, third.out_tokens, third.mlp_tokens) == (577, 577, 406)
    sampled = plan_of(method="ats").vision_spans[3]
    assert sampled.tokens == 577
    assert sampled.query_tokens == sampled.out_tokens == sampled.mlp_tokens < 577


@pytest.mark.parametrize("method", ["tome", "crossget", "ats"])
def test_tower_methods_reach_the_count_asked_for(method, plan_of) -> None:
    plan = plan_of(method=method, keep=144)
    assert plan.projected_tokens == 144 + (method == "crossget")


def test_published_settings_of_vtw_and_ats(plan_of, llm_tokens) -> None:
    assert llm_tokens(plan_of("llava-1.5-13b", method="vtw")) == [576] * 20 + [0] * 20
    assert plan_of(method="ats").projected_tokens == 144


def test_methods_before_the_projector_act_on_every_tile(plan_of) -> None:
    next_plan = plan_of("llava-next-vicuna-7b", visual=2880, crops=5, method="prumerge", keep=40)
    assert next_plan.projected_tokens == 5 * 41
    # Borders cut off and newline tokens do not change what the tower gives.
    cut = plan_of(
        "llava-next-vicuna-7b", visual=2340, projected=2880, crops=5, method="prumerge", keep=40
    )
    assert cut.projected_tokens == 5 * 41


def test_decoding_reads_the_shorter_cache() -> None:
    full = estimate(MODEL, A100, output_tokens=10)
    for method in ("fastv", "vtw", "fitprune", "divprune", "prumerge"):
        cost = estimate(MODEL, A100, output_tokens=10, method=method)
        assert cost.stages["decode"].kv_read_bytes < full.stages["decode"].kv_read_bytes
        assert cost.memory.kv_cache_bytes < full.memory.kv_cache_bytes
