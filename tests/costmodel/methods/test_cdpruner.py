"""CDPruner: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_cdpruner(own) -> None:
    # Projection into 768, one question, cosines, and row by row what earlier picks take away.
    picks = sum(2 * step * 576 for step in range(2, 64))
    assert own("cdpruner").flops == (
        2 * 576 * 1024 * 768 + 2 * 576 * 768 + 2 * 576**2 * 1024 + picks
    )
    assert own("cdpruner", keep=2).flops == own("cdpruner", keep=1).flops
