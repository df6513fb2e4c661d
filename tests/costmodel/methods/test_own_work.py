"""What methods' own work has in common."""

import pytest

from costmodel import estimate

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize("method", ["vtw", "sequential", "spatial", "m3", "ats"])
def test_nothing_to_compute(method, own) -> None:
    cost = own(method)
    assert cost.flops == 0
    assert cost.kernels > 0
    assert cost.hbm_bytes > 0


def test_methods_that_read_the_scores_have_them_written_out() -> None:
    def names(method):
        return {row.name.partition("[")[0] for row in estimate(MODEL, A100, method=method).ops}

    assert "attention_scores" not in names("fastv")
    for method in ("fitprune", "ats", "crossget"):
        assert "attention_scores" in names(method)
