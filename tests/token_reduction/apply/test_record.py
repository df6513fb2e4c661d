"""What the record says is what happened: lengths counted by hooks, and the method's own products."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hardware_specs.errors import InvalidInputError
from token_reduction import get_method, observe, reduce_tokens
from token_reduction.tokens.checks import _mode, finite_checks

METHODS = [
    ("prumerge", {"keep": 32}),
    ("prumerge+", {"keep": 32}),
    ("divprune", {"keep": 20}),
    ("sequential", {}),
    ("spatial", {}),
    ("m3", {}),
    ("fastv", {"keep": 0.25}),
    ("vtw", {"layer": 2}),
    ("divprune", {"keep": 20, "layer": 3}),
    ("fitprune", {}),
    ("tome", {}),
    ("evit", {"layers": (1, 2)}),
    ("ats", {"layers": (1, 2), "keep": 60}),
    ("crossget", {}),
]


class Lengths:
    """Rows through every q_proj, o_proj / out_proj and MLP, seen from outside."""

    def __init__(self, model):
        self.seen = {}
        self.handles = []
        for name, module in model.named_modules():
            if name.endswith(("q_proj", "o_proj", "out_proj", "mlp", "linear_1")):
                self.handles.append(module.register_forward_pre_hook(self._hook(name)))

    def _hook(self, name):
        def hook(_module, args, kwargs=None):
            values = args[0] if args else next(iter(kwargs.values()))
            self.seen.setdefault(name, []).append(values.shape[1])

        return hook

    def of(self, ending, prefix):
        names = [n for n in self.seen if n.endswith(ending) and prefix in n]
        return [
            self.seen[n][0]
            for n in sorted(names, key=lambda n: int(n.split("layers.")[1].split(".")[0]))
        ]

    def stop(self):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_recorded_lengths_are_those_of_the_layers(name, settings, llava, cases):
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings)) as record:
        lengths = Lengths(llava)
        llava(**case.inputs)
        lengths.stop()
    assert lengths.of("q_proj", "language_model") == record.sequence_lengths[:-1]
    assert lengths.of("mlp", "language_model")[-1] == record.sequence_lengths[-1]
    if record.vision_lengths:
        assert lengths.of("q_proj", "vision_tower") == record.vision_lengths[:-1]
        assert lengths.of("mlp", "vision_tower")[-1] == record.vision_lengths[-1]
    before, after = record.visual_tokens
    assert before == 576
    assert record.sequence_lengths[-1] == 9 + after
    if name == "fitprune":
        # Behind the attention, o_proj and FFN run on what the next layer gets.
        assert lengths.of("o_proj", "language_model") == record.sequence_lengths[1:]
        assert lengths.of("mlp", "language_model") == record.sequence_lengths[1:]
    if name == "ats":
        assert lengths.of("out_proj", "vision_tower") == record.vision_lengths[1:]
    document = record.to_dict()
    assert json.loads(json.dumps(document)) == document


def test_decode_steps_leave_the_record_and_the_observers_alone(llava, cases):
    case = cases["llava"]
    seen = []
    with torch.no_grad(), reduce_tokens(llava, "fastv") as record:
        with observe(lambda name, begins: seen.append((name, begins))):
            llava.generate(**case.inputs, max_new_tokens=4, do_sample=False)
        assert seen == [("reduction", True), ("reduction", False)]
        assert record.sequence_lengths == [585, 585, 297, 297, 297]
        text = torch.arange(20, 30).unsqueeze(0)
        llava(input_ids=text)
    assert record.visual_tokens == (576, 288)


def test_a_new_image_starts_the_record_anew(llava, cases, new_case):
    with torch.no_grad(), reduce_tokens(llava, get_method("prumerge", keep=32)) as record:
        llava(**cases["llava"].inputs)
        first = record.kept_indices[0]
        llava(**new_case(llava, "llava", seed=8).inputs)
    assert len(record.kept_indices) == 1
    assert not torch.equal(record.kept_indices[0], first)
    assert len(record.merge_weights) == 1


def test_fitprune_says_where_each_token_went(llava, cases):
    with torch.no_grad(), reduce_tokens(llava, "fitprune") as record:
        llava(**cases["llava"].inputs)
    stages = record.kept_by_layer
    assert [len(units[0]) + 9 for _, units in sorted(stages.items())] == record.sequence_lengths[1:]
    sets = [set(units[0].tolist()) for _, units in sorted(stages.items())]
    assert all(later <= earlier for earlier, later in pairwise(sets))
    assert record.kept_indices[0].tolist() == sorted(sets[-1])


class ReadBacks(TorchDispatchMode):
    """Counts the operations that make the host wait for an accelerator."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "unique",
        "repeat_interleave",
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += name in self.WAITING or masks
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "settings"),
    [entry for entry in METHODS if entry[0] not in ("ats", "prumerge+")],
)
def test_nothing_waits_for_the_device_but_the_model_itself(name, settings, llava, cases):
    """The prompt's ids are read once, before the tower runs; see `splice.read_prompt`.

    ATS and adaptive PruMerge read a count back by definition, and so does PruMerge+'s grid.
    """
    case = cases["llava"]
    with torch.no_grad(), finite_checks("off"):
        with ReadBacks() as untouched:
            llava(**case.inputs)
        with reduce_tokens(llava, get_method(name, **settings)), ReadBacks() as reduced:
            llava(**case.inputs)
    # On a CPU, DivPrune picks in NumPy and reads its first pick.
    assert reduced.count <= untouched.count + (name == "divprune")


def test_deferred_checks_are_read_at_the_end_of_the_block(llava, cases):
    """As on an accelerator: the call goes through, the error comes when the block ends."""
    inputs = {**cases["llava"].inputs}
    inputs["pixel_values"] = torch.full_like(inputs["pixel_values"], torch.inf)
    message = "NaN or infinity in divprune"
    with pytest.raises(InvalidInputError, match=message), torch.no_grad():  # noqa: PT012, SIM117
        with reduce_tokens(llava, "divprune"):
            token = _mode.set("deferred")
            try:
                llava(**inputs)
            finally:
                _mode.reset(token)
            went_on = True
    assert went_on
