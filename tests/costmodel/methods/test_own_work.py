"""What methods' own work has in common, and the FLOPs of some by hand."""

import pytest

from costmodel import estimate

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
ROW = 2 * 577 * 1024  # the class token's row over 577 keys of width 1024


@pytest.mark.parametrize("method", ["vtw", "sequential", "spatial", "m3", "ats"])
def test_nothing_to_compute(method, own) -> None:
    cost = own(method)
    assert cost.flops == 0
    assert cost.kernels > 0
    assert cost.hbm_bytes > 0


def test_methods_that_read_the_scores_have_them_written_out() -> None:
    def names(method):
        return {row.name.partition("[")[0] for row in estimate(MODEL, A100, method=method).ops}

    assert "attention_scores" not in names("fastv")
    for method in ("fitprune", "ats", "crossget"):
        assert "attention_scores" in names(method)


def test_every_own_op_belongs_to_the_reduction_stage() -> None:
    cost = estimate(MODEL, A100, method="crossget")
    rows = [row for row in cost.ops if row.stage == "reduction"]
    assert sum(row.flops for row in rows) == cost.stages["reduction"].flops
    assert {row.dtype for row in rows} == {"fp16"}


def test_tome_and_crossget(own) -> None:
    # Cosines of ceil(t/2) even with floor(t/2) odd tokens, width 64, t = 577 - 13 l.
    lengths = [577 - 13 * layer for layer in range(24)]
    assert own("tome").flops == sum(2 * ((t + 1) // 2) * (t // 2) * 64 for t in lengths)
    # All with all, one token more; the attention map is the layer's own.
    assert own("crossget").flops == sum(2 * (t + 1) ** 2 * 64 for t in lengths)


def test_evit(own) -> None:
    # The class token's row over t tokens, then the fused token from n - k patches.
    stages = [(577, 404), (406, 284), (286, 200)]
    assert own("evit").flops == sum(2 * t * 1024 + 2 * (t - 1 - k) * 1024 for t, k in stages)


def test_fastervlm_and_hired(own) -> None:
    assert own("fastervlm").flops == ROW
    assert own("hired").flops == 2 * ROW
    assert own("hired", model="llava-next-vicuna-7b").flops == 5 * 2 * ROW


def test_visionzip(own) -> None:
    # 577 less 64 kept join 10 contextual tokens: by keys of width 64, by features of width 1024.
    assert own("visionzip").flops == ROW + 2 * 513 * 10 * (64 + 1024)
    # Six tokens hold no contextual one.
    assert own("visionzip", keep=6).flops == ROW


def test_vispruner(own) -> None:
    # 32 by attention; 544 others lose 8 a round down to 32: 64 rounds of l/2 x l/2 pairs.
    pairs = sum((left // 2) ** 2 for left in range(544, 32, -8))
    assert own("vispruner").flops == ROW + 2 * pairs * 1024
    # 575 of 576: 287 by attention, 289 others lose one; 145 even places against 144 odd ones.
    assert own("vispruner", keep=575).flops == ROW + 2 * 145 * 144 * 1024
