"""Two methods in one request: schedule and price are those of each on what there is."""

import pytest

from costmodel import compare, estimate, get_method, sweep
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
LINE = "divprune(keep=144)/fastv(keep=0.5)"


def test_schedule_and_price() -> None:
    cost = estimate(MODEL, A100, method=LINE)
    assert cost.visual_tokens_by_layer == ((2, 144), (30, 72))
    first = estimate(MODEL, A100, method="divprune", keep=144)
    second = estimate(MODEL, A100, visual_tokens=144, method="fastv", keep=0.5)
    for stage in ("vision", "projector"):
        assert cost.stages[stage].flops == first.stages[stage].flops
    assert cost.stages["prefill"].flops == second.stages["prefill"].flops
    own = [each.stages["reduction"] for each in (first, second)]
    assert cost.stages["reduction"].flops == sum(stage.flops for stage in own)
    assert cost.stages["reduction"].kernels == sum(stage.kernels for stage in own)


def test_before_the_projector_and_in_the_tower() -> None:
    zipped = estimate(MODEL, A100, method="visionzip(keep=64)/pyramiddrop(keep=0.5)")
    assert zipped.visual_tokens_by_layer == ((8, 64), (8, 32), (8, 16), (8, 8))
    alone = estimate(MODEL, A100, method="visionzip", keep=64)
    assert zipped.stages["projector"].flops == alone.stages["projector"].flops
    merged = estimate(MODEL, A100, method="tome(keep=64)/vtw(layer=16)")
    alone = estimate(MODEL, A100, method="tome", keep=64)
    assert merged.stages["vision"].flops == alone.stages["vision"].flops
    assert merged.visual_tokens_by_layer[-1] == (16, 0)


def test_it_is_one_method_everywhere() -> None:
    method = get_method(LINE)
    assert str(method) == LINE
    assert get_method(str(method)) is method
    assert estimate(MODEL, A100, method=method).to_dict()["inputs"]["method"] == LINE
    table = sweep(MODEL, A100, method=["none", LINE], batch_size=[1, 8])
    for row in table.to_dict("records"):
        cost = estimate(MODEL, A100, method=row["method"], batch_size=int(row["batch_size"]))
        assert row["flops"] == cost.totals.flops
    answer = compare(MODEL, A100, methods=[LINE, "fastv"])
    assert any(row.method == LINE for row in answer.rows)


def test_lines_with_spaces_and_quotes() -> None:
    assert get_method("holitom(cut=0) / fastv").name == "holitom(cut=0)/fastv"
    assert get_method('cdpruner(embeddings="a)/(b")/fastv').info.stages[1].name == "fastv"


def test_keeping_everything_in_one_of_them() -> None:
    alone = estimate(MODEL, A100, method="fastv", keep=100)
    both = estimate(MODEL, A100, method="divprune(keep=1.0)/fastv(keep=100)")
    assert both.totals.flops == alone.totals.flops


@pytest.mark.parametrize("line", ["evs/fastv", "dycoke/v2drop", "holitom(cut=0)/fastv"])
def test_clips(line) -> None:
    shape = {"frames": 16}
    cost = estimate("qwen2.5-vl-7b", A100, method=line, **shape)
    first = estimate("qwen2.5-vl-7b", A100, method=line.partition("/")[0], **shape)
    assert cost.visual_tokens_by_layer[0][1] == first.visual_tokens_by_layer[0][1]
    assert cost.mean_visual_tokens < first.mean_visual_tokens


def test_holitom_alone_acts_at_one_place_without_its_cut() -> None:
    once = get_method("holitom", cut=0).info
    assert (once.where, once.asks_question, once.needs) == (
        "after-projector", False, {"tower_attention"},
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="holitom after-projector, then llm-layer, fastv"):
        get_method("holitom/fastv")
