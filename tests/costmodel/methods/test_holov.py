"""HoloV, HiPrune, V2Drop: own FLOPs, counts and refusals by hand."""

import pytest

from costmodel import estimate
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
ROW = 2 * 577 * 1024  # the class token's row over 577 keys of width 1024


def test_holov(own, plan_of, llm_tokens) -> None:
    # 16 chunks of 36 tokens of width 4096.
    assert own("holov").flops == ROW + 2 * 16 * 36**2 * 4096
    assert own("holov(chunks=10)").flops == ROW + 2 * 10 * 58**2 * 4096  # 57.6
    assert own("holov", model="llava-next-vicuna-7b").flops == 5 * (ROW + 2 * 16 * 36**2 * 4096)
    assert llm_tokens(plan_of(method="holov", keep=192)) == [192] * 32


def test_hiprune(own, plan_of, llm_tokens) -> None:
    assert own("hiprune").flops == 2 * 2 * 577**2 * 1024
    assert llm_tokens(plan_of(method="hiprune")) == [64] * 32
    with pytest.raises(
        InvalidInputError, match="vision layer 25, counted from 1, and this tower has 24"
    ):
        estimate(MODEL, A100, method="hiprune(shallow=25)")


def test_v2drop(own, plan_of, llm_tokens) -> None:
    assert own("v2drop").flops == 0
    assert llm_tokens(plan_of(method="v2drop")) == [576] * 3 + [288] * 14 + [144] * 5 + [1] * 10
    # Called 192 in its tables: (3 x 576 + 14 x 288 + 5 x 144 + 10) / 32.
    assert estimate(MODEL, A100, method="v2drop").mean_visual_tokens == 202.8125
    paper = "v2drop(shares=[0.5,0.3,0])"
    assert llm_tokens(plan_of(method=paper))[17] == 86  # int(0.3 x 288) = 86.4
    assert llm_tokens(plan_of(method="v2drop(keep=100)")) == [576] * 3 + [100] * 29
    assert llm_tokens(plan_of(method="v2drop", visual=2)) == [2] * 3 + [1] * 29


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("v2drop(layers=[0,3], shares=[0.5,0.5])", "layers of at least 1"),
        ("v2drop(layers=[3,8])", "2 layers and has 3 shares"),
        ("v2drop(layers=[3,8,40])", "layers 0 to 31"),
    ],
)
def test_v2drop_refuses(method, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        estimate(MODEL, A100, method=method)
