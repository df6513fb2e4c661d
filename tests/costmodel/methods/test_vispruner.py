"""VisPruner: own FLOPs by hand."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


ROW = 2 * 577 * 1024  # the class token's row over 577 keys of width 1024


def test_vispruner(own) -> None:
    # 32 by attention; 544 others lose 8 a round down to 32: 64 rounds of l/2 x l/2 pairs.
    pairs = sum((left // 2) ** 2 for left in range(544, 32, -8))
    assert own("vispruner").flops == ROW + 2 * pairs * 1024
    # 575 of 576: 287 by attention, 289 others lose one; 145 even places against 144 odd ones.
    assert own("vispruner", keep=575).flops == ROW + 2 * 145 * 144 * 1024
