"""The model after the block is the model before it, whatever happened inside."""

from __future__ import annotations

import gc
import hashlib
import weakref

import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction import get_method, list_methods, reduce_tokens

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
)  # fmt: skip
#: Settings under which each method acts in a tower of four layers and a language model of four.
SETTINGS = {
    "vtw": {"layer": 2}, "evit": {"layers": (1, 2)}, "ats": {"layers": (1, 2)},
    "prumerge+": {"keep": 32}, "sparsevlm": {"layers": (0, 1, 2)}, "hiprune": {"shallow": 2},
    "vscan": {"shallow": 2}, "v2drop": {"layers": (1, 2, 3)},
}  # fmt: skip
#: pixelprune takes models of native resolution alone.
ON_CROPS = [name for name in list_methods() if name != "pixelprune"]


def fingerprint(model):
    """Everything a block could leave behind: weights, buffers, hooks, attributes, config."""
    weights = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        weights.update(name.encode())
        weights.update(tensor.detach().contiguous().numpy().tobytes())
    modules = {
        name: (
            sorted(vars(module)),
            tuple(tuple(map(id, vars(module)[hook].values())) for hook in HOOKS),
            id(getattr(module.forward, "__func__", module.forward)),
        )
        for name, module in model.named_modules()
    }
    return weights.hexdigest(), modules, model.config.to_dict(), model.generation_config.to_dict()


def method_of(name):
    return get_method(name, **SETTINGS.get(name, {}))


@pytest.fixture(scope="module")
def used(make_model, cases):
    """A model that has run once: transformers installs its own hooks on the first forward."""
    model = make_model("llava")
    with torch.no_grad():
        model.generate(**cases["llava"].inputs, max_new_tokens=2, do_sample=False)
    return model


@pytest.mark.parametrize("name", ON_CROPS)
def test_the_model_is_bit_identical_afterwards(name, used, cases):
    case = cases["llava"]
    with torch.no_grad():
        before, state = used(**case.inputs).logits, fingerprint(used)
        with reduce_tokens(used, method_of(name), trace=True):
            used.generate(**case.inputs, max_new_tokens=2, do_sample=False)
            assert fingerprint(used)[1] != state[1]
        assert fingerprint(used) == state
        assert torch.equal(used(**case.inputs).logits, before)


@pytest.mark.parametrize("name", ON_CROPS)
def test_the_model_is_bit_identical_after_an_exception(name, used, cases):
    case = cases["llava"]
    state = fingerprint(used)
    with pytest.raises(RuntimeError, match="stop here"), reduce_tokens(used, method_of(name)):
        raise RuntimeError("stop here")
    assert fingerprint(used) == state
    # An exception from inside the forward, in the middle of a prefill, and the block goes on.
    layer = used.model.language_model.layers[-1].mlp

    def fail(_module, _args):
        raise KeyError("in the last layer")

    with torch.no_grad(), reduce_tokens(used, method_of(name)) as record:
        handle = layer.register_forward_pre_hook(fail)
        with pytest.raises(KeyError):
            used(**case.inputs)
        handle.remove()
        again = used(**case.inputs).logits
        assert record.visual_tokens[0] == 576
    with torch.no_grad(), reduce_tokens(used, method_of(name)):
        assert torch.equal(used(**case.inputs).logits, again)
    assert fingerprint(used) == state


def test_a_failed_entry_leaves_nothing(used):
    state = fingerprint(used)
    with (
        pytest.raises(InvalidInputError, match="layer 9"),
        reduce_tokens(used, get_method("vtw", layer=9)),
    ):
        pass
    assert fingerprint(used) == state
    with reduce_tokens(used, "divprune"):
        pass


def test_one_reduction_at_a_time(used, llava):
    state = fingerprint(used)
    with reduce_tokens(used, "divprune"):
        message = "inside reduce_tokens with divprune already"
        with pytest.raises(InvalidInputError, match=message), reduce_tokens(used, "fastv"):
            pass
        # Another model is another matter.
        with reduce_tokens(llava, "fastv"):
            pass
    assert fingerprint(used) == state
    with reduce_tokens(used, "fastv"):
        pass


def test_a_context_manager_is_used_once(used):
    block = reduce_tokens(used, "divprune")
    with block:
        pass
    with pytest.raises(Exception, match=r"generator|args"), block:
        pass


def test_the_model_is_not_kept_alive(make_model):
    model = make_model("llava")
    with reduce_tokens(model, "tome"):
        pass
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", [name for name in ON_CROPS if name != "ats"])
@pytest.mark.parametrize("kind", ["llava", "llava-onevision:video"])
def test_keeping_everything_leaves_the_model_untouched(name, kind, models, cases):
    """keep=1.0 is accepted by every method and means no reduction; the record counts all the same."""
    model, case = models[kind.partition(":")[0]], cases[kind]
    with torch.no_grad():
        expected = model(**case.inputs).logits
        with reduce_tokens(model, get_method(name, keep=1.0)) as record:
            actual = model(**case.inputs).logits
    assert torch.equal(actual, expected)
    assert record.visual_tokens == (case.visual, case.visual)
    assert record.sequence_lengths == [case.visual + 9] * 5
    assert record.kept_indices[0].tolist() == list(range(case.visual))
