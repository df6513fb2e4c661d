"""CrossGET: own FLOPs by hand."""

from costmodel import estimate

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_crossget(own) -> None:
    # Cosines of all with all, width 64, t = 578 - 13 l; the attention map is the layer's own.
    lengths = [578 - 13 * layer for layer in range(24)]
    assert own("crossget").flops == sum(2 * t * t * 64 for t in lengths)


def test_every_own_op_belongs_to_the_reduction_stage() -> None:
    cost = estimate(MODEL, A100, method="crossget")
    rows = [row for row in cost.ops if row.stage == "reduction"]
    assert sum(row.flops for row in rows) == cost.stages["reduction"].flops
    assert {row.dtype for row in rows} == {"fp16"}
