"""CDPruner: own FLOPs by hand."""


def test_cdpruner(own) -> None:
    # Projection into 768, one question, cosines, and row by row what earlier picks take away.
    picks = sum(2 * step * 576 for step in range(2, 64))
    assert own("cdpruner").flops == (
        2 * 576 * 1024 * 768 + 2 * 576 * 768 + 2 * 576**2 * 4096 + picks
    )
    assert own("cdpruner", keep=2).flops == own("cdpruner", keep=1).flops


def test_the_split_variant_by_hand(own) -> None:
    # 64 of 576: 32 of each 288, with 40 text tokens.
    picks = 2 * sum(2 * step * 288 for step in range(2, 32))
    line = "cdpruner(variant=split, keep=63)"
    halves = 2 * 576 * 40 * 4096 + 2 * 2 * 288**2 * 4096
    assert own(line, text_tokens=40).flops == halves + picks
    # One token list per image on a model that merges patches, and no CLIP to ask.
    assert own(line, model="qwen2.5-vl-7b").flops > 0
