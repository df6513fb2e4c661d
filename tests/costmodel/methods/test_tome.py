"""ToMe: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_tome(own) -> None:
    # Cosines of ceil(t/2) even with floor(t/2) odd tokens, width 64, t = 577 - 13 l.
    lengths = [577 - 13 * layer for layer in range(24)]
    assert own("tome").flops == sum(2 * ((t + 1) // 2) * (t // 2) * 64 for t in lengths)
