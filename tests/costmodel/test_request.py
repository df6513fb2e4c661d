"""The arguments of `estimate`, written once: kinds, ranges, and what reads them."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import (
    break_even,
    estimate,
    estimate_distribution,
    frontier,
    largest_batch,
    load_model,
    sweep,
)
from costmodel.estimates import context_for
from costmodel.precision import parse_precision
from costmodel.request import ARGUMENTS, DEFAULTS, Request
from hardware_specs import get_hardware
from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    UnknownNameError,
    VlmRooflineError,
)

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_the_signature_of_estimate_is_the_request() -> None:
    """The documented signature stays explicit; it cannot drift from the fields."""
    parameters = inspect.signature(estimate).parameters.values()
    fields = dataclasses.fields(Request)
    assert [(p.name, p.default, p.annotation) for p in parameters] == [
        (
            field.name,
            inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            field.type,
        )
        for field in fields
    ]
    assert [p.kind is p.KEYWORD_ONLY for p in parameters] == [field.kw_only for field in fields]
    described = inspect.getdoc(estimate) or ""
    assert all(f"\n    {name}: " in described for name in ARGUMENTS)


def test_a_new_field_reaches_every_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else knows the arguments is derived: nothing but a field is written for a new one."""
    from costmodel.questions import sweep_plan
    from vlm_roofline.cli.options import request_options
    from vlm_roofline.cli.pictures import PICTURE_OPTIONS

    assert {*sweep_plan.CATEGORIES, *sweep_plan.NUMBERS} == set(ARGUMENTS) - {"convention"}
    assert set(estimate(MODEL, A100).inputs) == set(ARGUMENTS) | {"crops"}
    counted = estimate(MODEL, A100, convention="fastv")
    assert set(counted.inputs) == set(ARGUMENTS) | {"crops"}

    @request_options()
    def command(given: dict[str, Any]) -> None:
        assert set(given) == set(ARGUMENTS)

    beside = {"variant": None, "option": None, **dict.fromkeys(PICTURE_OPTIONS)}
    assert set(inspect.signature(command).parameters) == {*ARGUMENTS, *beside}
    command(**{"model": MODEL, "hardware": A100, **DEFAULTS, **beside})


class Strange:
    """Looks like many things and is none of them."""

    name = "fp16"
    id = A100

    def __repr__(self) -> str:
        raise RuntimeError("not even a repr")


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**5000, -(10**5000), 0, 1, 2, 576]),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.sampled_from([Strange(), Strange, int, len, "x" * 200_000, Path("/nowhere"), Path()]),
    st.sampled_from([np.int8(3), np.float64(0.5), np.nan, np.array([1, 2]), np.array(4), np.str_("fp16")]),
)  # fmt: skip
anything = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.tuples(scalars, scalars),
    st.dictionaries(st.sampled_from(["text", "vision", "lm_head", ""]), scalars, max_size=2),
    st.frozensets(st.integers(), max_size=2),
    st.sampled_from([range(3), list(range(100_000)), parse_precision("fp16"), get_hardware(A100)]),
    st.just(load_model("llama-2-7b")),
)


@pytest.mark.parametrize(
    "value", [{"text": 10**5000}, {"text": Strange()}, {(1, 2): 3}], ids=["digits", "repr", "key"]
)
def test_a_config_that_no_json_holds_is_refused(value) -> None:
    with pytest.raises(InvalidFileError, match="config in memory"):
        estimate(value, A100)


@settings(max_examples=400)
@given(name=st.sampled_from(list(ARGUMENTS)), value=anything, convention=st.booleans())
def test_any_object_is_priced_or_refused_in_few_words(
    name: str, value: object, convention: bool
) -> None:
    asked: dict[str, Any] = {"model": MODEL, "hardware": A100, name: value}
    if convention and name != "convention":
        asked["convention"] = "fastv"
    try:
        cost = estimate(**asked)
    except VlmRooflineError as error:
        assert 0 < len(str(error)) < 1500
    else:
        json.dumps(cost.to_dict(), allow_nan=False)


@settings(max_examples=100)
@given(name=st.sampled_from(["visual_tokens", "batch_size", "method", "image_size", "keep", "precision"]),
       value=anything)  # fmt: skip
def test_questions_refuse_what_estimate_refuses(name: str, value: object) -> None:
    try:
        sweep(MODEL, A100, **{name: value})
    except VlmRooflineError as error:
        assert 0 < len(str(error)) < 1500


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"visual_tokens": 1.5}, "a whole number from 0 to 100000000, not 1.5"),
        ({"batch_size": 10**5000}, "from 1 to 100000000, not a whole number of about 5001"),
        ({"text_tokens": [40, 80]}, r"not \[40, 80\]; sweep takes lists"),
        ({"visual_tokens": np.array([1, 2])}, "sweep takes lists"),
        ({"keep": True}, r"a ratio \(a float in \(0, 1\]\), not the bool True"),
        ({"attention": "flsh"}, "attention='flsh' is unknown; did you mean flash; there is: flash"),
        ({"logits": []}, "there is: last, all"),
        ({"image_size": (1, 2, 3)}, "such as"),
        ({"image_size": (480, 0)}, "image_size must be a whole number from 1"),
        ({"frames": 0}, "frames must be a whole number from 1"),
        ({"precision": 16}, "a precision's name"),
        ({"method": 3.5}, "a method's name"),
        ({"calibration": 7}, "a Calibration, not 7"),
        ({"model": None}, "a ModelConfig, not None"),
        ({"hardware": Strange}, "a HardwareSpec, not <class"),
        ({"execution": "m" * 5000}, "an execution plan's name, not 'mmm"),
    ],
)
def test_messages_name_the_kind_and_show_what_was_given(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Request(**{"model": MODEL, "hardware": A100} | given)


def test_values_are_kept_in_plain_types() -> None:
    request = Request(
        MODEL, A100, batch_size=np.int8(3), keep=np.float32(0.5), image_size=[np.int64(48), 64]
    )
    assert type(request.batch_size) is int
    assert (type(request.keep), request.keep) == (float, 0.5)
    assert request.image_size == (48, 64)


def test_the_order_of_keywords_is_nothing_to_the_cache() -> None:
    given = {"keep": 64, "method": "divprune", "logits": "all", "execution": "hf-eager"}
    contexts = [
        context_for(Request(MODEL, A100, **dict(order)))
        for order in (given.items(), reversed(given.items()))
    ]
    assert contexts[0] is contexts[1]
    # As keys these are one; as what to keep they are one token and all of them.
    few, every = (context_for(Request(MODEL, A100, method="divprune", keep=k)) for k in (1, 1.0))
    assert (few.keep, every.keep) == (1, 1.0)
    assert few is not every


@pytest.mark.parametrize(
    "question",
    [
        lambda **given: sweep(MODEL, A100, **given),
        lambda **given: break_even(MODEL, A100, **given),
        lambda **given: largest_batch(MODEL, A100, **given),
        lambda **given: estimate_distribution(MODEL, A100, "prumerge", **given),
        lambda **given: frontier(MODEL, A100, benchmark="pope", **given),
    ],
)
def test_questions_name_near_arguments(question: Any) -> None:
    with pytest.raises(UnknownNameError, match="did you mean precision"):
        question(precison="fp16")
    with pytest.raises(InvalidInputError):
        question(convention="fastv")
