"""What each method makes of the lengths: hand-derived, and against published numbers."""

import pytest

from costmodel import estimate, load_model
from costmodel.estimates import context_for
from costmodel.evaluate import Scenario
from costmodel.methods.fitprune import shipped_schemes, tokens_by_layer

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def plan_of(model=MODEL, *, visual=576, projected=None, crops=1, text=40, batch=1, **asked):
    settings = {"method": None, "keep": None, "layer": None, **asked}
    context, _ = context_for(
        model, A100, "fp16", None, execution="fused", attention="flash", logits="last",
        vision_layers="executed", **settings,
    )  # fmt: skip
    projected = visual if projected is None else projected
    return context.method_plan(Scenario(visual, projected, crops, text, batch, 0))


def llm_tokens(plan):
    return [span.tokens for span in plan.llm_spans for _ in range(span.layers)]


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
def test_before_the_language_model(method, keep, tokens, projected) -> None:
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
        ("sparsevlm", {"keep": 64, "visual": 40}, [40] * 7 + [31] * 9 + [18] * 16),
    ],
)
def test_inside_the_language_model(method, asked, expected) -> None:
    plan = plan_of(method=method, **asked)
    assert llm_tokens(plan) == expected
    assert plan.projected_tokens == expected[0] if expected[0] > 10 else 576


def test_pyramiddrop_drops_after_quarters_of_40_layers() -> None:
    tokens = llm_tokens(plan_of("llava-1.5-13b", method="pyramiddrop"))
    assert tokens == [576] * 10 + [288] * 10 + [144] * 10 + [72] * 10


@pytest.mark.parametrize(
    ("model", "visual", "keep", "printed"),
    [
        ("llava-1.5-7b", None, 0.4, "1.54"),
        ("llava-1.5-7b", None, 0.5, "1.78"),
        ("llava-1.5-7b", None, 0.6, "2.06"),
        ("llava-next-vicuna-7b", 2880, 0.5, "9.46"),
        ("llava-next-vicuna-7b", 2880, 0.4, "8.22"),
    ],
)
def test_pyramiddrops_own_counting_gives_its_tables(model, visual, keep, printed) -> None:
    cost = estimate(
        model, A100, visual_tokens=visual, method="pyramiddrop", keep=keep,
        convention="pyramiddrop", text_tokens=None,
    )  # fmt: skip
    assert f"{cost.totals.flops / 1e12:.2f}" == printed


@pytest.mark.parametrize(("keep", "printed"), [(192, 2.14), (128, 1.72), (64, 1.30)])
def test_sparsevlms_own_counting_comes_near_its_table(keep, printed) -> None:
    cost = estimate(
        MODEL, A100, method="sparsevlm", keep=keep, convention="sparsevlm", text_tokens=None
    )
    assert cost.totals.flops / 1e12 == pytest.approx(printed, rel=0.017)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({"visual": 2880}, 576),  # as papers count: no newline tokens; int(.2 x 2880)
        ({"visual": 2928}, 624),  # 672 x 672: 288 of the whole image, 288 of the tiles, 48 newlines
        # 480 x 640: 36 of 48 rows are shown, so 216 of 288 picks, and 36 newlines.
        ({"visual": 2340}, 540),
        # 640 x 480: 48 rows of 36, as many picks, 48 newlines.
        ({"visual": 576 + 48 * 37}, 552),
        # 336 x 672: int(.2 x 1728) = 345, 172 and 173; 24 rows of 48 and as many newlines.
        ({"visual": 576 + 24 * 49, "projected": 1728, "crops": 3}, 172 + 173 + 24),
        ({"visual": 2880, "keep": 1000}, 1000),  # 500 and 500
        # Half of the budget is more than the whole image has; the tiles get the rest.
        ({"visual": 2880, "keep": 2000}, 576 + 1424),
    ],
)
def test_hired_on_tiles(asked, tokens) -> None:
    shape = {"projected": 2880, "crops": 5, **asked}
    plan = plan_of("llava-next-vicuna-7b", method="hired", **shape)
    assert llm_tokens(plan) == [tokens] * 32
    assert plan.projected_tokens == shape["projected"]


@pytest.mark.parametrize(
    ("method", "per_frame"),
    [("visionzip", 64), ("fastervlm", 14), ("vispruner", 65), ("cdpruner", 65)],
)
def test_a_videos_class_tokens_go_along(method, per_frame) -> None:
    # 8 frames of 257: one class token each beside what is kept of 256; VisionZip counts it.
    plan = plan_of("video-llava-7b", method=method, visual=2056, projected=2056, crops=8)
    assert llm_tokens(plan) == [8 * per_frame] * 32
    assert plan.projected_tokens == (8 * per_frame if method == "visionzip" else 2056)


def test_vtw_withdraws_at_layer_20_of_40() -> None:
    assert llm_tokens(plan_of("llava-1.5-13b", method="vtw")) == [576] * 20 + [0] * 20


def test_fitprune_keeps_the_keys_of_what_it_deletes() -> None:
    plan = plan_of(method="fitprune")
    scheme = shipped_schemes()[60]
    before = [576 - sum(scheme[:layer]) for layer in range(33)]
    assert llm_tokens(plan) == before[:32]
    for span, after in zip(plan.llm_spans, before[1:], strict=True):
        assert (span.tokens if span.out_tokens is None else span.out_tokens) == after
    assert before[-1] == 576 - 449


@pytest.mark.parametrize(
    ("reduction", "ratio", "mean_keys"),
    [
        (50, 0.5034, 301.8),
        (60, 0.4030, 245.0),
        (70, 0.3028, 187.9),
        (80, 0.2031, 130.6),
        (90, 0.1032, 72.8),
    ],
)
def test_fitprune_reaches_its_visual_flops(reduction, ratio, mean_keys) -> None:
    # Nothing but image tokens: QKV and attention see n, o_proj and FFN n less what the layer deletes.
    kept = estimate(MODEL, A100, method="fitprune", keep=1 - reduction / 100, text_tokens=0)
    whole = estimate(MODEL, A100, text_tokens=0)
    head = 2 * 4096 * 32064
    share = (kept.stages["prefill"].flops - head) / (whole.stages["prefill"].flops - head)
    assert share == pytest.approx(ratio, abs=5e-5)
    entering = tokens_by_layer(shipped_schemes()[reduction], 32, 576)[:-1]
    assert sum(entering) / 32 == pytest.approx(mean_keys, abs=0.05)


def test_fitprune_scheme_stretches_to_another_model() -> None:
    plan = plan_of("llava-1.5-13b", method="fitprune")
    tokens = llm_tokens(plan)
    assert len(tokens) == 40
    assert tokens[0] == 576
    # The same share is left in the end, 127 of 576.
    assert plan.llm_spans[-1].out_tokens in (None, 127)
    assert tokens[-1] >= 127


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
def test_inside_the_vision_tower(method, keep, entering, projected) -> None:
    plan = plan_of(method=method, keep=keep)
    assert [span.tokens for span in plan.vision_spans] == entering
    assert plan.projected_tokens == projected
    assert llm_tokens(plan) == [projected] * 32


def test_tower_reduction_sits_between_attention_and_mlp() -> None:
    span = plan_of(method="tome").vision_spans[0]
    assert (span.tokens, span.out_tokens, span.mlp_tokens) == (577, 577, 564)
    third = plan_of(method="evit").vision_spans[3]
    assert (third.tokens, third.out_tokens, third.mlp_tokens) == (577, 577, 406)
    sampled = plan_of(method="ats").vision_spans[3]
    assert sampled.tokens == 577
    assert sampled.query_tokens == sampled.out_tokens == sampled.mlp_tokens < 577


@pytest.mark.parametrize("method", ["tome", "crossget", "ats"])
def test_tower_methods_reach_the_count_asked_for(method) -> None:
    plan = plan_of(method=method, keep=144)
    assert plan.projected_tokens == 144 + (method == "crossget")


def test_ats_expects_a_quarter_by_default() -> None:
    assert plan_of(method="ats").projected_tokens == 144


def test_methods_before_the_projector_act_on_every_tile() -> None:
    next_plan = plan_of("llava-next-vicuna-7b", visual=2880, crops=5, method="prumerge", keep=40)
    assert next_plan.projected_tokens == 5 * 41
    # Borders cut off and newline tokens do not change what the tower gives.
    cut = plan_of(
        "llava-next-vicuna-7b", visual=2340, projected=2880, crops=5, method="prumerge", keep=40
    )
    assert cut.projected_tokens == 5 * 41


def test_divprune_takes_an_image_at_a_time() -> None:
    # Two images: round(.098 x 576) = 56 of each; all tiles of one image are one list.
    assert llm_tokens(plan_of(visual=1152, crops=2, method="divprune"))[0] == 112
    tiled = plan_of("llava-next-vicuna-7b", visual=2880, crops=5, method="divprune")
    assert llm_tokens(tiled)[0] == round(0.098 * 2880)


def test_video_takes_the_papers_video_share() -> None:
    plan = plan_of("video-llava-7b", visual=2048, crops=8, method="prumerge")
    assert plan.projected_tokens == 8 * (32 + 1)  # 12.5 % of 256 in each of 8 frames
    plus = plan_of("video-llava-7b", visual=2048, crops=8, method="prumerge+")
    assert plus.projected_tokens == 512  # 25 %


def test_fastv_saves_what_its_paper_says() -> None:
    # FastV's Table 1, 13B, K=2: MACs of a two-matrix FFN, 36 text tokens, mean over layers, in 1e9.
    text = load_model("llava-1.5-13b").text
    d, m = text.hidden_size, text.intermediate_size

    def macs(n):
        return 4 * n * d * d + 2 * n * n * d + 2 * n * d * m

    for keep, printed in ((0.1, 29.7), (0.25, 50.2), (0.5, 84.6)):
        tokens = llm_tokens(plan_of("llava-1.5-13b", method="fastv", keep=keep, text=36))
        mean = sum(macs(36 + n) for n in tokens) / len(tokens)
        # The table keeps 57.6 of 576 tokens at 90 %, where a model keeps 58.
        assert mean / 1e9 == pytest.approx(printed, rel=5e-3)


def test_decoding_reads_the_shorter_cache() -> None:
    full = estimate(MODEL, A100, output_tokens=10)
    for method in ("fastv", "vtw", "fitprune", "divprune", "prumerge"):
        cost = estimate(MODEL, A100, output_tokens=10, method=method)
        assert cost.stages["decode"].kv_read_bytes < full.stages["decode"].kv_read_bytes
        assert cost.memory.kv_cache_bytes < full.memory.kv_cache_bytes
