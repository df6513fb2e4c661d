"""Dividing a model among processes by the tensor-parallel plan that transformers has for it.

The plan names a style for modules of the language model: `colwise` keeps a share of a product's columns,
`rowwise` a share of its rows and sums the results up, `colwise_gather_output` (the head) gathers them, and
`embedding_rowwise` keeps a share of the vocabulary and sums up what was looked up. The rest, vision tower
and norms among it, is held whole by every process. A share is an ordinary smaller matrix, so that products
run as they do without division; transformers runs them so too where no gradient is asked for.

Each collective is told to the observers of `token_reduction.observe` as `communication`, from its call until
the device may go on: time spent waiting for the other processes is inside.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from costmodel.parallel.sharding import rank_model
from hardware_specs.errors import InvalidInputError, UnsupportedError
from profiling.devices.ranks import world_size
from profiling.records.measurement import COMMUNICATION
from profiling.subject.execution import method_for
from profiling.subject.models import FLOAT_DTYPES
from token_reduction.tokens.observation import observed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import nn

    from costmodel.models import ModelConfig
    from profiling.records.measurement import Configuration

#: Styles that leave a module whole: what they add concerns gradients.
_WHOLE = frozenset({"replicate", "replicated_with_grad_allreduce"})
#: Places of methods that look at a layer's attention, of which a process has its own heads.
_IN_LANGUAGE_MODEL = frozenset({"llm-layer", "decode"})
#: Older names of a style.
_SAME = {"colwise_rep": "colwise_gather_output"}


@dataclass(slots=True)
class Collectives:
    """The collectives of one process with its group, observed and counted.

    Args:
        rank: this process.
        size: how many share the model.
        sent: bytes by kind of collective: of what is summed up, and of what a gather yields.
    """

    rank: int
    size: int
    sent: Counter[str] = field(default_factory=Counter)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes of tensors of one shape, in place."""
        import torch.distributed as dist

        tensor = tensor.contiguous()
        with observed(COMMUNICATION):
            dist.all_reduce(tensor)
        self.sent["all_reduce"] += tensor.numel() * tensor.element_size()
        return tensor

    def gather(self, tensor: torch.Tensor, width: int) -> torch.Tensor:
        """Return the tensors of all processes side by side along the last axis, cut to `width`."""
        import torch
        import torch.distributed as dist

        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with observed(COMMUNICATION):
            dist.all_gather(parts, tensor)
        self.sent["all_gather"] += self.size * tensor.numel() * tensor.element_size()
        return torch.cat(parts, dim=-1)[..., :width]


def tensor_plan(model: nn.Module) -> dict[str, str]:
    """Return the style of every module that is divided, by the module's name.

    Older releases of transformers leave embedding and head of some models whole, which newer ones divide:
    they are divided here.

    Raises:
        UnsupportedError: it has no plan for the layers of this model, or one with another style.
    """
    rules: Mapping[str, str] = getattr(model, "_tp_plan", None) or {}
    ends: Any = model
    whole = {
        id(ends.get_input_embeddings()): "embedding_rowwise",
        id(ends.get_output_embeddings()): "colwise_gather_output",
    }
    found = {}
    for name, module in model.named_modules():
        style = rules.get(re.sub(r"\.\d+(?=\.|$)", ".*", name), whole.get(id(module)))
        if style is None and name.endswith(".experts"):
            raise UnsupportedError(
                f"transformers divides the layers of {type(model).__name__} and leaves {name} whole; measure "
                "it with one process"
            )
        if style is not None and style not in _WHOLE:
            found[name] = _SAME.get(style, style)
    for name, style in found.items():
        if style not in _STYLES:
            raise UnsupportedError(
                f"transformers divides {name} of {type(model).__name__} by the style {style!r}; what can be "
                f"measured has {', '.join(_STYLES)}"
            )
    if not {"colwise", "rowwise"} <= set(found.values()):
        raise UnsupportedError(
            f"transformers has no tensor-parallel plan for the layers of {type(model).__name__}; measure "
            "it with one process"
        )
    return found


def divide(model: nn.Module, collectives: Collectives) -> None:
    """Leave a model with one process's share of its weights, and put the collectives into it.

    Args:
        model: as transformers builds it, on any device; `meta` will do.
        collectives: of this process.

    Raises:
        UnsupportedError: see `tensor_plan`.
        InvalidInputError: a product that so many processes cannot share.
    """
    modules = dict(model.named_modules())
    cut = _Cut(collectives)
    for name, style in tensor_plan(model).items():
        _STYLES[style](modules[name], cut, name)


@dataclass(slots=True)
class _Cut:
    """This process's share of parameters; one that two modules hold stays one."""

    group: Collectives
    known: dict[int, Any] = field(default_factory=dict)

    def share(self, module: nn.Module, name: str, axis: int, length: int) -> None:
        """Keep `length` entries of a parameter along an axis, zeros behind its end."""
        import torch

        whole = module._parameters.get(name)
        if whole is None:
            return
        part = self.known.get(id(whole))
        if part is None:
            start = min(self.group.rank * length, whole.shape[axis])
            kept = whole.detach().narrow(axis, start, min(length, whole.shape[axis] - start))
            shape = list(whole.shape)
            shape[axis] = length
            filled = whole.new_zeros(shape)
            filled.narrow(axis, 0, kept.shape[axis]).copy_(kept)
            part = torch.nn.Parameter(filled, requires_grad=whole.requires_grad)
            self.known[id(whole)] = part
        module._parameters[name] = part

    def even(self, width: int, name: str) -> int:
        """Return a share of a width that must divide."""
        if width % self.group.size:
            raise InvalidInputError(
                f"{self.group.size} processes cannot share the {width} features of {name}; take a divisor"
            )
        return width // self.group.size


def _columns(module: Any, cut: _Cut, name: str) -> None:
    share = cut.even(module.out_features, name)
    for parameter in ("weight", "bias"):
        cut.share(module, parameter, 0, share)
    module.out_features = share


def _rows(module: Any, cut: _Cut, name: str) -> None:
    share = cut.even(module.in_features, name)
    cut.share(module, "weight", 1, share)
    module.in_features = share
    # Added to the sum, once. Another name keeps it out of the product and in the model.
    bias = module._parameters.get("bias")
    module._parameters["bias"] = None
    module.register_parameter("bias_of_sum", bias)

    def close(owner: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        total = cut.group.sum(output)
        return total if owner.bias_of_sum is None else total + owner.bias_of_sum

    module.register_forward_hook(close)


def _gathered(module: Any, cut: _Cut, _name: str) -> None:
    width = module.out_features
    share = -(-width // cut.group.size)
    for parameter in ("weight", "bias"):
        cut.share(module, parameter, 0, share)
    module.out_features = share
    module.register_forward_hook(lambda _owner, _inputs, output: cut.group.gather(output, width))


def _vocabulary(module: Any, cut: _Cut, _name: str) -> None:
    share = -(-module.num_embeddings // cut.group.size)
    first = cut.group.rank * share
    cut.share(module, "weight", 0, share)
    module.num_embeddings, module.padding_idx = share, None
    elsewhere: list[torch.Tensor] = []

    def look_up_own(_owner: Any, inputs: Any) -> Any:
        ids = inputs[0] - first
        missing = (ids < 0) | (ids >= share)
        elsewhere.append(missing)
        return (ids.masked_fill(missing, 0), *inputs[1:])

    def sum_up(_owner: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return cut.group.sum(output.masked_fill(elsewhere.pop()[..., None], 0.0))

    module.register_forward_pre_hook(look_up_own)
    module.register_forward_hook(sum_up)


_STYLES: dict[str, Callable[[Any, _Cut, str], None]] = {
    "colwise": _columns,
    "rowwise": _rows,
    "colwise_gather_output": _gathered,
    "embedding_rowwise": _vocabulary,
}


def check_division(
    configuration: Configuration, shape: ModelConfig, build: Callable[[str], nn.Module]
) -> None:
    """Refuse a configuration that these processes cannot measure together.

    Args:
        configuration: the settings.
        shape: the cost model's description of its model.
        build: gives the model of a name, with or without weights.

    Raises:
        InvalidInputError: it is meant for another number of processes, or heads or widths that these
            cannot share.
        UnsupportedError: a mode, dtype, method or model that is measured with one process only.
    """
    tp, here = configuration.tp, world_size()
    if tp != here:
        raise InvalidInputError(
            f"tp={tp} is measured by as many processes, and there "
            + ("is one" if here == 1 else f"are {here}")
            + f"; start it with torchrun --nproc-per-node {tp}, or take Plan.shared_by({here})"
        )
    if tp == 1:
        return
    if configuration.mode != "eager":
        raise UnsupportedError(
            f"mode {configuration.mode!r} is measured with one process; use eager"
        )
    if configuration.dtype not in FLOAT_DTYPES:
        raise UnsupportedError(
            f"{configuration.dtype} is measured with one process; give {', '.join(FLOAT_DTYPES)}"
        )
    if configuration.method != "none":
        info = method_for(configuration).info
        stages = [stage.info for stage in info.stages] or [info]
        if any({each.place, each.second_place} & _IN_LANGUAGE_MODEL for each in stages):
            raise UnsupportedError(
                f"method {configuration.method!r} chooses by a layer's attention, of which each process has "
                "its own heads; measure it with one process"
            )
    rank_model(shape, tp)
    if shape.text.num_kv_heads % tp:
        raise InvalidInputError(
            f"tp={tp} does not divide the {shape.text.num_kv_heads} KV heads of {shape.name}, and the plan "
            "of transformers repeats none; take a divisor"
        )
    tensor_plan(build(configuration.model))
