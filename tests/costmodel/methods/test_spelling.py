"""A method as one line of text, which reads back as the same method."""

import pytest

from costmodel import estimate, get_method, sweep
from hardware_specs.errors import InvalidInputError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (get_method("fastv"), "fastv"),
        (get_method("prumerge+", keep=0.1), "prumerge+(keep=0.1)"),
        (
            get_method("fastv", keep=64, layer=3, variant="paper"),
            "fastv(keep=64, layer=3, variant=paper)",
        ),
        (get_method("evit", layers=(2, 5), fuse=False), "evit(layers=[2,5], fuse=false)"),
        (get_method("spatial", grid=(5, 8)), "spatial(grid=[5,8])"),
        (get_method("tome", r=[16, 8], inflect=0), "tome(r=[16,8])"),
        (get_method("tome", inflect=-1), "tome(inflect=-1.0)"),
        (get_method("fitprune", scheme=None), "fitprune"),
        (
            get_method("crossget", weights='a "b", (c)'),
            r'crossget(weights="a \"b\", (c)")',
        ),
        (get_method("divprune", keep=1.0), "divprune(keep=1.0)"),
    ],
)
def test_there_and_back(method, line) -> None:
    assert str(method) == line
    again = get_method(line)
    assert again == method
    assert type(again.given_keep) is type(method.given_keep)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fastv(", "no method with its settings"),
        ("fastv(keep)", "no method with its settings"),
        ("fastv(keep=0.5", "no method with its settings"),
        ("fastv(keep=half)", "keep=half is no number"),
        ("fastv(r=8)", "no option 'r'"),
        ("fastv(keep=0.5, variant=mine)", "no variant 'mine'"),
    ],
)
def test_lines_that_cannot_be_read(line, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        get_method(line)


def test_a_setting_is_given_once() -> None:
    with pytest.raises(InvalidInputError, match="give it once"):
        get_method("fastv(keep=0.5)", keep=0.25)
    with pytest.raises(InvalidInputError, match="give it once"):
        estimate(MODEL, A100, method="fastv(layer=3)", layer=2)
    assert get_method("fastv(keep=0.5)", keep=0.5).keep == 0.5


def test_wherever_a_name_is_taken() -> None:
    line = estimate(MODEL, A100, method="tome(r=8)")
    assert line.totals == estimate(MODEL, A100, method=get_method("tome", r=8)).totals
    methods = ["tome", "tome(r=8)", get_method("fastv", keep=0.25, variant="paper"), "none"]
    rows = sweep(MODEL, A100, method=methods)
    assert list(rows["method"]) == ["tome", "tome(r=8)", "fastv(variant=paper)", "none"]
    assert rows["flops"].iloc[1] == line.totals.flops
    assert float(rows["keep"].iloc[2]) == 0.25
