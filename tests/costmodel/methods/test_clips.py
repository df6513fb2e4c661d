"""Methods for clips: counts and own work by hand, images left alone, rows of a sweep."""

import pytest

from costmodel import estimate, sweep
from costmodel.methods import list_methods, method_info
from hardware_specs.errors import UnsupportedError

A100 = "nvidia-a100-sxm4-80gb"
CLIPS = tuple(name for name in list_methods() if method_info(name).clips)

#: Those that need the tower's own view of a frame.
WEIGHED = ("fastvid", "holitom")


@pytest.mark.parametrize(
    ("model", "shape", "frames", "each", "tail"),
    [
        ("qwen2.5-vl-7b", {"frames": 16, "image_size": (480, 640)}, 8, 391, 0),
        ("qwen3-vl-8b", {"frames": 16, "image_size": (480, 640)}, 8, 300, 0),
        ("llava-onevision-7b", {"frames": 32}, 32, 196, 1),
        ("video-llava-7b", {}, 8, 256, 0),
        ("internvl3-8b", {"frames": 8}, 8, 256, 0),
    ],
)
def test_counts(model, shape, frames, each, tail) -> None:
    plain = estimate(model, A100, **shape)
    assert plain.mean_visual_tokens == frames * each + tail
    left = {
        "evs": max(each, int(frames * each * 0.3)),
        "vidcom2": max(frames, int(frames * each * 0.25)),
        "dycoke": frames * each - (frames // 2 + -(-(frames - 4) // 4)) * (each - int(0.3 * each)),
    }
    for name, kept in left.items():
        cost = estimate(model, A100, method=name, **shape)
        assert cost.mean_visual_tokens == kept + tail
        for stage in ("vision", "projector"):
            assert cost.stages[stage].flops == plain.stages[stage].flops
        assert cost.stages["reduction"].flops == 0
        assert cost.stages["reduction"].time_s > 0


def test_of_three_frames_evs_leaves_one() -> None:
    """int(3 x 196 x 0.3) = 176 is less than the first frame."""
    assert estimate("llava-onevision-7b", A100, method="evs", frames=3).mean_visual_tokens == 197


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("llava-1.5-7b", {}),
        ("llava-next-vicuna-7b", {}),
        ("llava-onevision-7b", {"images": 3}),
        ("qwen2.5-vl-7b", {}),
        ("qwen2.5-vl-7b", {"frames": 2}),
        ("llava-onevision-7b", {"frames": 1}),
    ],
)
def test_images_and_single_frames_are_left_alone(name, model, shape) -> None:
    plain = estimate(model, A100, **shape)
    reduced = estimate(model, A100, method=name, **shape)
    assert reduced.totals.flops == plain.totals.flops
    assert reduced.mean_visual_tokens == plain.mean_visual_tokens
    assert reduced.stages["reduction"].kernels == 0
    assert any("give frames=" in warning for warning in reduced.warnings)


@pytest.mark.parametrize("name", WEIGHED)
def test_frames_that_no_tower_weighs_are_refused(name) -> None:
    for model in ("video-llava-7b", "llava-next-video-7b", "internvl3-8b"):
        with pytest.raises(UnsupportedError, match="a SigLIP tower"):
            estimate(model, A100, method=name, frames=8)


@pytest.mark.parametrize("name", [*CLIPS, "dycoke(variant=both)"])
@pytest.mark.parametrize("model", ["qwen2.5-vl-7b", "llava-onevision-7b", "video-llava-7b"])
def test_rows_of_a_sweep_are_estimates(name, model) -> None:
    if name in WEIGHED and model == "video-llava-7b":
        return
    frames, steps = [1, 2, 3, 8, 33], [1, 0, 16]
    table = sweep(model, A100, method=name, frames=frames, batch_size=[1, 3], output_tokens=steps)
    for row in table.to_dict("records"):
        asked = {key: int(row[key]) for key in ("frames", "batch_size", "output_tokens")}
        cost = estimate(model, A100, method=name, **asked)
        assert row["flops"] == cost.totals.flops
        assert row["time_s"] == pytest.approx(cost.totals.time_s, rel=1e-12)


@pytest.mark.parametrize("name", CLIPS)
def test_more_frames_cost_more(name) -> None:
    costs = [
        estimate("llava-onevision-7b", A100, method=name, frames=n).totals.flops for n in (4, 8, 64)
    ]
    assert costs == sorted(costs)
    whole = estimate("llava-onevision-7b", A100, frames=64).totals.flops
    assert costs[-1] < whole


def test_fastvid_by_hand() -> None:
    """Eight scenes of four frames, 28 anchors each; 12 of 196 tokens of a frame are salient."""
    cost = estimate("llava-onevision-7b", A100, method="fastvid", frames=32)
    assert cost.mean_visual_tokens == 32 * 12 + 8 * 28 + 1
    c, d, n = 1152, 3584, 729
    head = 32 * (4 * n * c * c + 4 * n * c + 2 * c * c + 4 * c * 4304) + 2 * c * c
    merge = 8 * 4 * (4 * 184 * 28 * d)
    assert cost.stages["reduction"].flops == head + 2 * 8 * 184**2 * d + merge


def test_holitom_by_hand() -> None:
    """30 of each frame's 196 tokens and the newline; half of them go at layer 18 of 28."""
    cost = estimate("llava-onevision-7b", A100, method="holitom", frames=32, text_tokens=64)
    assert cost.visual_tokens_by_layer == ((18, 961), (10, 480))
    c, d, n, s = 1152, 3584, 729, 961 + 64
    assert cost.stages["reduction"].flops == (
        32 * 2 * n * n * c + 2 * d * s + 2 * (2 * 481 * 480 * d)
    )
    whole = estimate("llava-onevision-7b", A100, method="holitom(cut=0)", frames=32)
    assert whole.visual_tokens_by_layer == ((28, 961),)


def test_dycokes_second_stage_by_hand() -> None:
    """Of 3,099 visual entries 929 are read from layer 3 on; a step's row of scores is added to its FLOPs."""
    asked = {"frames": 32, "text_tokens": 64, "output_tokens": 8}
    first = estimate("llava-onevision-7b", A100, method="dycoke", **asked)
    both = estimate("llava-onevision-7b", A100, method="dycoke(variant=both)", **asked)
    d, mean = 3584, 64 + 1 + 3.5
    row = 8 * 2 * d * (3099 + mean)
    fewer = 8 * 25 * 4 * d * (3099 - 929)
    assert both.stages["decode"].flops == first.stages["decode"].flops + row - fewer
    for stage in ("prefill", "reduction"):
        assert both.stages[stage].flops == first.stages[stage].flops
    assert both.memory == first.memory
    alone = estimate("llava-onevision-7b", A100, method="dycoke(variant=both)", output_tokens=8)
    plain = estimate("llava-onevision-7b", A100, output_tokens=8)
    assert alone.totals.flops == plain.totals.flops
