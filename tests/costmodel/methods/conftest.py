"""What the methods' tests ask of LLaVA-1.5-7B on an A100: a plan, its lengths, the cost of own work."""

import pytest

from costmodel import estimate, load_model
from costmodel.methods import MethodInput, get_method, method_info
from costmodel.precision import parse_precision

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


@pytest.fixture
def own():
    """The stage `reduction` of an estimate under a method."""

    def priced(method, **asked):
        model = asked.pop("model", MODEL)
        return estimate(model, A100, method=method, **asked).stages["reduction"]

    return priced


@pytest.fixture
def program_flops():
    """What the authors' program of a method computes on 576 tokens of LLaVA-1.5-7B."""
    given = MethodInput(
        load_model(MODEL), parse_precision("fp16"), 576, 576, 1, 40, 1, 24, None, None, "program", {},
    )  # fmt: skip
    return lambda name: method_info(name).program_flops(given)


@pytest.fixture
def plan_of():
    """The plan of a method, by name and settings."""

    def made(
        model=MODEL, *, method, visual=576, projected=None, crops=1, text=40, batch=1, **asked
    ):
        config = load_model(model)
        projected = visual if projected is None else projected
        return get_method(method).plan(
            config, parse_precision("fp16"), visual, projected, crops, text, batch,
            config.vision.num_layers, **asked,
        )  # fmt: skip

    return made


@pytest.fixture
def llm_tokens():
    """Visual tokens of every language-model layer of a plan."""

    def listed(plan):
        return [span.tokens for span in plan.llm_spans for _ in range(span.layers)]

    return listed
