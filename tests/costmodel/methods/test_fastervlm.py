"""FasterVLM, and HiRED beside it: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


ROW = 2 * 577 * 1024  # the class token's row over 577 keys of width 1024


def test_fastervlm_and_hired(own) -> None:
    assert own("fastervlm").flops == ROW
    assert own("hired").flops == 2 * ROW
    assert own("hired", model="llava-next-vicuna-7b").flops == 5 * 2 * ROW
