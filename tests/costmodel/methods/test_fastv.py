"""FastV: own FLOPs by hand, and what its paper saves."""

import pytest

from costmodel import load_model


def test_fastv(own) -> None:
    # One query row of 32 heads over 616 keys of width 128.
    assert own("fastv").flops == 2 * 32 * 616 * 128
    assert own("fastv", layer=0).flops == 0


def test_fastv_saves_what_its_paper_says(plan_of, llm_tokens) -> None:
    # FastV's Table 1, 13B, K=2: MACs of a two-matrix FFN, 36 text tokens, mean over layers, in 1e9.
    text = load_model("llava-1.5-13b").text
    d, m = text.hidden_size, text.intermediate_size

    def macs(n):
        return 4 * n * d * d + 2 * n * n * d + 2 * n * d * m

    for keep, printed in ((0.1, 29.7), (0.25, 50.2), (0.5, 84.6)):
        tokens = llm_tokens(plan_of("llava-1.5-13b", method="fastv", keep=keep, text=36))
        mean = sum(macs(36 + n) for n in tokens) / len(tokens)
        # The table keeps 57.6 of 576 tokens at 90 %, where a model keeps 58.
        assert mean / 1e9 == pytest.approx(printed, rel=5e-3)
