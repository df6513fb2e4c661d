"""DART: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_dart(own) -> None:
    assert own("dart").flops == own("dart", layer=7).flops == 2 * 8 * 576 * 4096
