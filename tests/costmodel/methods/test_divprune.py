"""DivPrune: own FLOPs by hand and against a published profile, its picks, its token lists."""

import pytest

from costmodel import estimate

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_divprune(own, program_flops) -> None:
    assert own("divprune").flops == 2 * 576**2 * 4096
    program = program_flops("divprune")
    assert program == 2 * own("divprune").flops
    # 24.159 GFLOP of the projector and twice 2.718: what one paper's profiler charges DivPrune with.
    projector = estimate(MODEL, A100).stages["projector"].flops
    assert (projector / 1e9, program / 2e9) == (
        pytest.approx(24.159, abs=5e-4),
        pytest.approx(2.718, abs=5e-4),
    )
    assert (projector + program) / 1e9 == pytest.approx(29.595, abs=5e-4)


def test_divprune_picks_one_after_the_other() -> None:
    picks = [row for row in estimate(MODEL, A100, method="divprune").ops if row.name == "pick"]
    assert picks[0].count == 56
    assert picks[0].kernels == 3 * 56


def test_divprune_takes_an_image_at_a_time(plan_of, llm_tokens) -> None:
    # Two images: round(.098 x 576) = 56 of each; all tiles of one image are one list.
    assert llm_tokens(plan_of(visual=1152, crops=2, method="divprune"))[0] == 112
    tiled = plan_of("llava-next-vicuna-7b", visual=2880, crops=5, method="divprune")
    assert llm_tokens(tiled)[0] == round(0.098 * 2880)
