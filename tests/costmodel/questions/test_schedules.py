"""`solve_schedule`: the setting that gives a mean, and what layers cannot reach."""

import pytest

from costmodel import estimate, solve_schedule
from costmodel.methods import list_methods, method_info
from costmodel.schedule import schedule_text
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("method", "mean", "layers"),
    [
        ("pyramiddrop", 192, None),
        ("pyramiddrop", 64, (2, 4, 8)),
        ("pyramiddrop", 128, [4, 16]),
        ("pyramiddrop", 150, None),  # no share of a share of a share: one count
        ("fastv", 192, None),
        ("fastv", 100, 2),
        ("divprune", 64, None),
        ("divprune", 200, 8),
        ("visionzip", 128, None),
        ("evit", 200, None),
    ],
)
def test_the_answer_has_the_mean(method, mean, layers) -> None:
    solved = solve_schedule(MODEL, method, mean_tokens=mean, layers=layers)
    cost = estimate(MODEL, A100, method=solved.method)
    assert cost.visual_tokens_by_layer == solved.visual_tokens_by_layer
    assert cost.mean_visual_tokens == pytest.approx(mean, abs=1)
    assert solved.mean_visual_tokens == cost.mean_visual_tokens
    left = [round(ratio * 576) for ratio in solved]
    assert left == [tokens for _, tokens in cost.visual_tokens_by_layer if tokens != 576]


def test_a_neighbouring_setting_is_no_nearer() -> None:
    solved = solve_schedule(MODEL, "fastv", mean_tokens=192)
    assert solved.keep == 166  # (2 x 576 + 30 x 166) / 32 = 191.625; 167 gives 192.5625
    assert solved.mean_visual_tokens == 191.625


@pytest.mark.parametrize(
    ("method", "asked", "message"),
    [
        ("pyramiddrop", {"mean_tokens": 64}, "first 8 of 32 layers see all 576 .*no less than 144"),
        ("fastv", {"mean_tokens": 20}, "first 2 of 32 layers see all 576 .*no less than 36"),
        ("fastv", {"mean_tokens": 20, "layers": [2, 4]}, "takes one layer"),
        ("divprune", {"mean_tokens": 577}, "at most at the 576"),
        ("divprune", {"mean_tokens": 0}, "above 0"),
        ("evs", {"mean_tokens": "64"}, "mean_tokens must be a number from 0"),
        ("divprune", {"mean_tokens": None}, "mean_tokens must be a number from 0"),
        ("pyramiddrop", {"mean_tokens": 192, "layers": 1.5}, "must be a list of layers"),
        ("vtw", {"mean_tokens": 200}, "takes no keep"),
        ("m3", {"mean_tokens": 100}, "no nearer to 100 .* than 64"),
        ("sparsevlm", {"mean_tokens": 300}, "published settings only"),
        ("fitprune", {"mean_tokens": 300}, r"301\.81 \(keep 0\.5\), .* none is 300"),
        ("tome(r=8)", {"mean_tokens": 300}, r"tome\(r=8\) says itself how many"),
        ("visionzip", {"mean_tokens": 64, "layers": 3}, "takes no layers"),
        ("evs", {"mean_tokens": 64}, "leaves images alone; give frames="),
    ],
)
def test_what_cannot_be_reached_is_said(method, asked, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        solve_schedule(MODEL, method, **asked)


def test_other_models_and_a_method_with_settings() -> None:
    """Qwen2.5-VL counts tokens of one image, LLaVA-NeXT tokens of five crops."""
    solved = solve_schedule("qwen2.5-vl-7b", "fastv(layer=3)", mean_tokens=300)
    assert solved.method.layer == 3
    assert solved.mean_visual_tokens == pytest.approx(300, abs=1)
    tiled = solve_schedule("llava-next-7b", "visionzip", mean_tokens=640)
    assert tiled.keep == 128
    assert tiled.mean_visual_tokens == 640


def test_every_schedule_that_is_solved_for_is_printed_as_ranges() -> None:
    cost = estimate(MODEL, A100, method="pyramiddrop")
    said = "576 in layers 0-7, 288 in layers 8-15, 144 in layers 16-23, 72 in layers 24-31; 270"
    assert schedule_text(cost.visual_tokens_by_layer) == f"{said} on average"


@pytest.mark.parametrize("name", [n for n in list_methods() if method_info(n).keep_kind != "none"])
def test_the_mean_of_a_default_is_found_again(name) -> None:
    if name in ("fitprune", "sparsevlm", "pixelprune"):
        pytest.skip("a few shipped settings, no scale")
    if method_info(name).clips:
        model, frames = "llava-onevision-7b", 16
        mean = estimate(model, A100, method=name, frames=frames).mean_visual_tokens
        solved = solve_schedule(model, name, mean_tokens=mean, frames=frames)
        assert solved.mean_visual_tokens == pytest.approx(mean, abs=1, rel=0.02)
        return
    mean = estimate(MODEL, A100, method=name).mean_visual_tokens
    assert solve_schedule(MODEL, name, mean_tokens=mean).mean_visual_tokens == pytest.approx(
        mean, abs=1, rel=0.02
    )
