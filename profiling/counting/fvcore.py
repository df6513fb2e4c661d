"""fvcore's count of the same run, from a traced graph on the meta device.

fvcore counts multiply-adds and has no handle for fused attention, so it gets one. It cannot trace a
convolution without data; the patch convolution, whose stride is its window, is the same product as a
linear layer over unfolded patches, and is counted as that.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hardware_specs.errors import MissingDependencyError
from profiling.subject.inputs import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.subject.execution import Execution

#: fvcore's op name -> our kind. What is not here it does not count, or is not a product.
_KINDS = {
    "linear": "linear", "matmul": "linear", "addmm": "linear", "bmm": "attention",
    "scaled_dot_product_attention": "attention", "conv": "conv", "layer_norm": "norm",
}  # fmt: skip


class _Prefill(nn.Module):
    """The language model and the head's last row, as a function of embeddings alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        output = self.model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1)
        logits: torch.Tensor = output.logits
        return logits


class _Vision(nn.Module):
    """Tower and projector as a function of pixels alone."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self.model = execution.model
        self.execution = [execution]
        arguments = execution.visual.arguments if execution.visual else {}
        # As plain numbers: a tracer would make them part of the graph.
        self.numbers = {
            name: arguments[name].tolist()
            for name in ("image_sizes", "batch_num_images")
            if name in arguments
        }

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        from dataclasses import replace

        visual = self.execution[0].visual
        assert visual is not None  # noqa: S101  (only made for models with pixels)
        arguments: dict[str, Any] = dict(visual.arguments)
        arguments[next(iter(arguments))] = pixels
        arguments |= self.numbers
        return encode(self.model, replace(visual, arguments=arguments))


def trace_counts(execution: Execution) -> dict[tuple[str, str], int]:
    """Return fvcore's FLOPs by stage and kind of op: multiply-adds times two, norms as they are.

    Args:
        execution: a model with its inputs, on the meta device.

    Raises:
        MissingDependencyError: fvcore is not installed.
    """
    _analysis_class()
    counts: Counter[tuple[str, str]] = Counter()
    if execution.visual is not None:
        pixels = next(iter(execution.visual.arguments.values()))
        with _convolutions_as_products(execution), _without_packing(execution.model):
            by_module = _analyse(_Vision(execution), pixels)
        for name, ops in by_module.items():
            stage = "vision" if name == "tower" else "projector"
            for kind, flops in ops.items():
                counts[stage, kind] += flops
    embeddings = execution.embeddings(execution.visual_tokens())
    for ops in _analyse(_Prefill(execution.model), embeddings).values():
        for kind, flops in ops.items():
            counts["prefill", kind] += flops
    return counts


def _analysis_class() -> Any:
    with _torchs_own_remarks():
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError as error:
            raise MissingDependencyError("fvcore", "profile") from error
    return FlopCountAnalysis


@contextmanager
def _torchs_own_remarks() -> Iterator[None]:
    """Silence torch's warnings about fvcore's compiling and tracing, and no others.

    fvcore compiles a function with `torch.jit.script` when it is imported, and traces a model with
    `torch.jit.trace` when it counts; the graph is only counted, never run.
    """
    with warnings.catch_warnings():
        for deprecated in ("script", "script_method", "trace", "trace_method"):
            warnings.filterwarnings(
                "ignore", rf"`torch\.jit\.{deprecated}` is (deprecated|not supp)"
            )
        # A Python branch on a tensor's value; torch's own class, whatever it says.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def _analyse(wrapper: nn.Module, argument: torch.Tensor) -> dict[str, dict[str, int]]:
    """Return doubled multiply-adds by kind, for the towers and for the rest."""
    analysis = _analysis_class()(wrapper, argument)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with _torchs_own_remarks():
        by_module = analysis.by_module_and_operator()
    whole = _kinds(by_module[""])
    towers: Counter[str] = Counter()
    for name, ops in by_module.items():
        if name.rsplit(".", 1)[-1].endswith("_tower"):
            towers.update(_kinds(ops))
        # The convolution was put in the place of a layer inside the tower.
        if name.endswith("patch_embedding"):
            product = _kinds(ops)["linear"]
            for counts in (towers, whole):
                counts["linear"] -= product
                counts["conv"] += product
    rest = {kind: flops - towers[kind] for kind, flops in whole.items()}
    return {
        "tower": {kind: flops for kind, flops in towers.items() if flops},
        "rest": {kind: flops for kind, flops in rest.items() if flops},
    }


def _kinds(ops: Any) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for name, number in ops.items():
        if kind := _KINDS.get(name):
            kinds[kind] += int(number) * (1 if kind == "norm" else 2)
    return kinds


def _attention_macs(inputs: list[Any], _outputs: list[Any]) -> int:
    """Return b h s t (e + e_v) multiply-adds."""
    query, key, value = (item.type().sizes() for item in inputs[:3])
    b, h, s, e = query
    return int(b * h * s * key[2] * (e + value[3]))


@contextmanager
def _without_packing(model: nn.Module) -> Iterator[None]:
    """Leave tiles unpacked: packing multiplies nothing, and rounds sizes that a tracer replaces."""
    base: Any = model.model
    if not hasattr(base, "pack_image_features"):
        yield
        return
    base.pack_image_features = lambda features, *_args, **_kwargs: (list(features), None)
    try:
        yield
    finally:
        del base.pack_image_features


@contextmanager
def _convolutions_as_products(execution: Execution) -> Iterator[None]:
    with ExitStack() as stack:
        for tower in execution.parts.towers:
            for module in tower.modules():
                if isinstance(module, nn.Conv2d):
                    stack.enter_context(_as_product(module))
        yield


@contextmanager
def _as_product(convolution: nn.Conv2d) -> Iterator[None]:
    window = convolution.kernel_size

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        b, c, height, width = (int(size) for size in pixels.shape)
        rows, columns = height // window[0], width // window[1]
        # A convolution ignores what does not fill a window at the edge.
        whole = pixels[:, :, : rows * window[0], : columns * window[1]]
        patches = whole.reshape(b, c, rows, window[0], columns, window[1])
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(
            b, rows * columns, c * math.prod(window)
        )
        weight = convolution.weight.reshape(convolution.out_channels, -1)
        product = nn.functional.linear(patches, weight, convolution.bias)
        return product.transpose(1, 2).reshape(b, -1, rows, columns)

    convolution.forward = forward  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del convolution.forward
