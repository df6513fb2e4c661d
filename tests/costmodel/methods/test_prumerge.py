"""PruMerge and PruMerge+: own FLOPs by hand, and the authors' program."""

import pytest


def test_prumerge(own) -> None:
    # 2 x 577 x 1024 + 2 x 32 x 576 x 1024 + 2 x 576 x 1024
    assert own("prumerge", keep=32).flops == 1181696 + 37748736 + 1179648
    # With the grid 32 + 91 patches are kept.
    assert own("prumerge+", keep=32).flops == 1181696 + 2 * 123 * 576 * 1024 + 1179648


def test_prumerge_program_recomputes_the_whole_attention(program_flops) -> None:
    flops = program_flops("prumerge")
    assert flops == 2 * 577**2 * 1024
    assert flops / 1e9 == pytest.approx(0.68, abs=0.005)


def test_prumerge_on_a_tower_cut_short_needs_the_last_projections(own) -> None:
    short = own("prumerge", keep=32, vision_layers="useful").flops
    # The class token's query and all 577 keys of layer 24.
    assert short - own("prumerge", keep=32).flops == 2 * (1 + 577) * 1024 * 1024


def test_video_takes_the_papers_video_share(plan_of) -> None:
    plan = plan_of("video-llava-7b", visual=2048, crops=8, method="prumerge")
    assert plan.projected_tokens == 8 * (32 + 1)  # 12.5 % of 256 in each of 8 frames
    plus = plan_of("video-llava-7b", visual=2048, crops=8, method="prumerge+")
    assert plus.projected_tokens == 512  # 25 %
