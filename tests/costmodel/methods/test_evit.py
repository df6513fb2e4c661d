"""EViT: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_evit(own) -> None:
    # The class token's row over t tokens, then the fused token from n - k patches.
    stages = [(577, 404), (406, 284), (286, 200)]
    assert own("evit").flops == sum(2 * t * 1024 + 2 * (t - 1 - k) * 1024 for t, k in stages)
