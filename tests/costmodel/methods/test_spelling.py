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
        ("fastv(r=8)", "unknown option of fastv 'r'"),
        ("fastv(keep=0.5, variant=mine)", "unknown variant of fastv 'mine'"),
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


def test_the_questions_take_a_method_with_its_settings() -> None:
    from costmodel import break_even, estimate_distribution, largest_batch

    method = get_method("fastv", keep=0.25, variant="paper")
    assert break_even(MODEL, A100, method=method, most=64).floor_s > 0
    assert largest_batch(MODEL, A100, method=method) > 0
    spread = estimate_distribution(MODEL, A100, get_method("prumerge", neighbours=8))
    assert spread.inputs["method_options"] == {"neighbours": 8}
    with pytest.raises(InvalidInputError, match="give keep as a ratio"):
        break_even(MODEL, A100, method=get_method("fastv", keep=64), most=64)


def test_keep_and_layer_are_given_in_one_place() -> None:
    method = get_method("fastv", keep=64, layer=3)
    for asked in ({"keep": 0.5}, {"keep": 64.0 / 64}, {"layer": 2}):
        with pytest.raises(InvalidInputError, match="give it once"):
            estimate(MODEL, A100, method=method, **asked)
    same = estimate(MODEL, A100, method=method, keep=64, layer=3)
    assert same.totals == estimate(MODEL, A100, method="fastv", keep=64, layer=3).totals
    inputs = same.to_dict()["inputs"]
    assert (inputs["method"], inputs["keep"], inputs["layer"]) == ("fastv", 64, 3)
    assert "method_options" not in inputs
