"""VisionZip: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


ROW = 2 * 577 * 1024  # the class token's row over 577 keys of width 1024


def test_visionzip(own) -> None:
    # 577 less 64 kept join 10 contextual tokens: by keys of width 64, by features of width 1024.
    assert own("visionzip").flops == ROW + 2 * 513 * 10 * (64 + 1024)
    # Six tokens hold no contextual one.
    assert own("visionzip", keep=6).flops == ROW
