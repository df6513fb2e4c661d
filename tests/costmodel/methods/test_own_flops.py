"""The FLOPs of each method's own work: derived by hand, and against published figures."""

import pytest

from costmodel import estimate
from costmodel.methods import MethodInput, method_info
from costmodel.methods.fitprune import shipped_schemes
from costmodel.models import load_model
from costmodel.precision import parse_precision

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def own(method, **asked):
    return estimate(asked.pop("model", MODEL), A100, method=method, **asked).stages["reduction"]


def program_flops(name):
    given = MethodInput(
        load_model(MODEL),
        parse_precision("fp16"),
        576,
        576,
        1,
        40,
        1,
        24,
        None,
        None,
        "program",
        {},
    )
    return method_info(name).program_flops(given)


def test_prumerge() -> None:
    # 2 x 577 x 1024 + 2 x 32 x 576 x 1024 + 2 x 576 x 1024
    assert own("prumerge", keep=32).flops == 1181696 + 37748736 + 1179648
    # With the grid 32 + 91 patches are kept.
    assert own("prumerge+", keep=32).flops == 1181696 + 2 * 123 * 576 * 1024 + 1179648


def test_prumerge_program_recomputes_the_whole_attention() -> None:
    flops = program_flops("prumerge")
    assert flops == 2 * 577**2 * 1024
    assert flops / 1e9 == pytest.approx(0.68, abs=0.005)


def test_prumerge_on_a_tower_cut_short_needs_the_last_projections() -> None:
    short = own("prumerge", keep=32, vision_layers="useful").flops
    # The class token's query and all 577 keys of layer 24.
    assert short - own("prumerge", keep=32).flops == 2 * (1 + 577) * 1024 * 1024


def test_divprune() -> None:
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


def test_fastv() -> None:
    # One query row of 32 heads over 616 keys of width 128.
    assert own("fastv").flops == 2 * 32 * 616 * 128
    assert own("fastv", layer=0).flops == 0


@pytest.mark.parametrize("method", ["vtw", "sequential", "spatial", "m3", "ats"])
def test_nothing_to_compute(method) -> None:
    cost = own(method)
    assert cost.flops == 0
    assert cost.kernels > 0
    assert cost.hbm_bytes > 0


def test_tome() -> None:
    # Cosines of ceil(t/2) even with floor(t/2) odd tokens, width 64, t = 577 - 13 l.
    lengths = [577 - 13 * layer for layer in range(24)]
    assert own("tome").flops == sum(2 * ((t + 1) // 2) * (t // 2) * 64 for t in lengths)


def test_evit() -> None:
    # The class token's row over t tokens, then the fused token from n - k patches.
    stages = [(577, 404), (406, 284), (286, 200)]
    assert own("evit").flops == sum(2 * t * 1024 + 2 * (t - 1 - k) * 1024 for t, k in stages)


def test_crossget() -> None:
    # Cosines of all with all, width 64, t = 578 - 13 l; the attention map is the layer's own.
    lengths = [578 - 13 * layer for layer in range(24)]
    assert own("crossget").flops == sum(2 * t * t * 64 for t in lengths)


ROW = 2 * 577 * 1024  # the class token's row over 577 keys of width 1024


def test_visionzip() -> None:
    # 577 less 64 kept join 10 contextual tokens: by keys of width 64, by features of width 1024.
    assert own("visionzip").flops == ROW + 2 * 513 * 10 * (64 + 1024)
    # Six tokens hold no contextual one.
    assert own("visionzip", keep=6).flops == ROW


def test_fastervlm_and_hired() -> None:
    assert own("fastervlm").flops == ROW
    assert own("hired").flops == 2 * ROW
    assert own("hired", model="llava-next-vicuna-7b").flops == 5 * 2 * ROW


def test_vispruner() -> None:
    # 32 by attention; 544 others lose 8 a round down to 32: 64 rounds of l/2 x l/2 pairs.
    pairs = sum((left // 2) ** 2 for left in range(544, 32, -8))
    assert own("vispruner").flops == ROW + 2 * pairs * 1024
    # 575 of 576: 287 by attention, 289 others lose one; 145 even places against 144 odd ones.
    assert own("vispruner", keep=575).flops == ROW + 2 * 145 * 144 * 1024


def test_cdpruner() -> None:
    # Projection into 768, one question, cosines, and row by row what earlier picks take away.
    picks = sum(2 * step * 576 for step in range(2, 64))
    assert own("cdpruner").flops == (
        2 * 576 * 1024 * 768 + 2 * 576 * 768 + 2 * 576**2 * 1024 + picks
    )
    assert own("cdpruner", keep=2).flops == own("cdpruner", keep=1).flops


def test_pyramiddrop() -> None:
    # Keys of all tokens, one query, one row of scores, at 616, 328 and 184 tokens.
    stages = (616, 328, 184)
    assert own("pyramiddrop").flops == sum(
        2 * s * 4096**2 + 2 * 4096**2 + 2 * s * 4096 for s in stages
    )


def test_dart() -> None:
    assert own("dart").flops == own("dart", layer=7).flops == 2 * 8 * 576 * 4096


def test_sparsevlm() -> None:
    # 40 text tokens rate 576; their rows at 616, 349 and 244 tokens; means of 82, 32, 28 recycled.
    rows = sum(2 * 40 * s * 4096 for s in (616, 349, 244))
    means = sum(2 * c * p * 4096 for c, p in ((9, 82), (4, 32), (3, 28)))
    assert own("sparsevlm").flops == 2 * 576 * 40 * 4096 + rows + means
    # The distances between recycled tokens are executed, though no counter sees them.
    executed = [row for row in estimate(MODEL, A100, method="sparsevlm").ops
                if row.name.startswith("distance")]  # fmt: skip
    assert [row.executed_flops for row in executed] == [2 * p * p * 4096 for p in (82, 32, 28)]
    assert sum(row.flops for row in executed) == 0


def test_fitprune() -> None:
    # Two weighted sums over the rows of a 616 x 616 map in the first layer, then of shorter ones.
    scheme = shipped_schemes()[60]
    before = [576 - sum(scheme[:layer]) for layer in range(32)]
    flops = sum(2 * 2 * (40 + n) ** 2 for n, deleted in zip(before, scheme, strict=True) if deleted)
    assert own("fitprune").flops == flops


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
