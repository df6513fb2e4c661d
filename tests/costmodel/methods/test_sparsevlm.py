"""SparseVLM: own FLOPs by hand, and its paper's table by its own counting."""

import pytest

from costmodel import estimate

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_sparsevlm(own) -> None:
    # 40 text tokens rate 576; their rows at 616, 349 and 244 tokens; means of 82, 32, 28 recycled.
    rows = sum(2 * 40 * s * 4096 for s in (616, 349, 244))
    means = sum(2 * c * p * 4096 for c, p in ((9, 82), (4, 32), (3, 28)))
    assert own("sparsevlm").flops == 2 * 576 * 40 * 4096 + rows + means
    # The distances between recycled tokens are executed, though no counter sees them.
    executed = [row for row in estimate(MODEL, A100, method="sparsevlm").ops
                if row.name.startswith("distance")]  # fmt: skip
    assert [row.executed_flops for row in executed] == [2 * p * p * 4096 for p in (82, 32, 28)]
    assert sum(row.flops for row in executed) == 0


@pytest.mark.parametrize(("keep", "printed"), [(192, 2.14), (128, 1.72), (64, 1.30)])
def test_sparsevlms_own_counting_comes_near_its_table(keep, printed) -> None:
    cost = estimate(
        MODEL, A100, method="sparsevlm", keep=keep, convention="sparsevlm", text_tokens=None
    )
    assert cost.totals.flops / 1e12 == pytest.approx(printed, rel=0.017)
