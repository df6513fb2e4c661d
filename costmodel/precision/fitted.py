"""A checkpoint's own precision on a device: module by module, layer by layer where schemes differ."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from costmodel.precision.arithmetic import computes, on_device
from costmodel.precision.checkpoint import Checkpoint, dtype_named
from costmodel.precision.formats import FORMATS
from costmodel.precision.layers import linear_layers, matcher
from costmodel.precision.names import parse_precision
from costmodel.precision.numerics import MODULES, Numerics, Precision, Resolved, stored_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.models import ModelConfig
    from costmodel.precision.schemes import Scheme
    from hardware_specs import HardwareSpec


@lru_cache(maxsize=64)
def of_checkpoint(checkpoint: Checkpoint, model: ModelConfig, hardware: HardwareSpec) -> Resolved:
    """Return a checkpoint's numerics, with what a device has where it lacks their arithmetic.

    Raises:
        MissingPeakError: a device with no floating arithmetic at all.
    """
    warnings: list[str] = []
    wide = {}
    for part, dtype in (("text", checkpoint.text), ("vision", checkpoint.vision)):
        found, another = on_device(dtype or "fp16", hardware)
        wide[part] = parse_precision(found).text
        if another:
            warnings.append(
                f"the checkpoint's dtype is {dtype}, which {hardware.name} does not compute in; "
                f"{found} is priced instead"
            )
    wide |= {"projector": wide["vision"], "lm_head": wide["text"]}
    quantised = checkpoint.quantisation
    if quantised is None:
        name = wide["text"].name
        if wide["vision"].name != name:
            name = f"text={name},vision={wide['vision'].name}"
        own = Precision(name, *(wide[module] for module in MODULES))
        return Resolved(
            own, tuple(dict.fromkeys(warnings)), f"auto, the checkpoint's dtype {checkpoint.text}"
        )
    if quantised.kv_bits is not None:
        wide["text"] = wide["text"]._replace(kv_bytes=quantised.kv_bits / 8)
    modules = _modules(checkpoint, model, wide, hardware, warnings)
    name = next((s.numerics.name for s in quantised.schemes), wide["text"].name)
    if name not in FORMATS or modules != _as_named(name, wide, model, hardware):
        name = f"{quantised.method} checkpoint"
    own = Precision(name, *(modules[module] for module in MODULES))
    origin = f"auto, the checkpoint's quantization_config ({quantised.method})"
    return Resolved(own, tuple(dict.fromkeys(warnings)), origin)


def _as_named(
    name: str, wide: Mapping[str, Numerics], model: ModelConfig, hardware: HardwareSpec
) -> dict[str, Numerics]:
    """Return the modules as the named format has them, in the checkpoint's dtypes."""
    form, ignored = FORMATS[name], list[str]()
    parts = form.modules if model.vision is not None else ("text",)
    return {
        module: _fitted(form.text, own, hardware, ignored) if module in parts else own
        for module, own in wide.items()
    }


def _modules(
    checkpoint: Checkpoint,
    model: ModelConfig,
    wide: Mapping[str, Numerics],
    hardware: HardwareSpec,
    warnings: list[str],
) -> dict[str, Numerics]:
    """Return the numerics of every module, its layers sorted by the schemes that hold for them."""
    assert checkpoint.quantisation is not None  # noqa: S101 - the caller checked; narrows the type
    rules = [
        (scheme, matcher(scheme.excepted, checkpoint.file, globs=scheme.globs),
         matcher(scheme.targets, checkpoint.file, globs=scheme.globs) if scheme.targets else None)
        for scheme in checkpoint.quantisation.schemes
    ]  # fmt: skip
    found: dict[str, dict[str, Counter[Scheme | None]]] = {module: {} for module in wide}
    for layer in linear_layers(model):
        kept = None
        for scheme, excepted, targeted in rules:
            outside = checkpoint.text_only and layer.module in ("vision", "projector")
            if layer.module not in scheme.modules or outside or excepted(layer):
                continue
            if targeted is None or targeted(layer):
                kept = scheme
                break
        found[layer.module].setdefault(layer.product, Counter())[kept] += 1

    def numerics(scheme: Scheme | None, module: str) -> Numerics:
        own = wide[module]
        if scheme is None:
            return own
        if scheme.compute:
            where = f"{checkpoint.file}: quantization_config.bnb_4bit_compute_dtype"
            computed, _ = on_device(dtype_named(scheme.compute, where), hardware)
            own = own._replace(linear_dtype=computed)
        return _fitted(scheme.numerics, own, hardware, warnings)

    modules = {}
    for module, products in found.items():
        each = {
            name: _mean({numerics(scheme, module): n for scheme, n in counts.items()})
            for name, counts in products.items()
        }
        commonest = Counter(each.values()).most_common(1)
        base = commonest[0][0] if commonest else wide[module]
        others = tuple((name, own) for name, own in each.items() if own != base)
        modules[module] = base._replace(products=others)
    return modules


def _fitted(
    numerics: Numerics, wide: Numerics, hardware: HardwareSpec, warnings: list[str]
) -> Numerics:
    """Return stored weights with the arithmetic that a device has for them."""
    if not numerics.dequantise or numerics.operand_bytes < numerics.activation_bytes:
        needed = numerics.linear_dtype
        if not computes(hardware, needed):
            warnings.append(
                f"{hardware.name} has no {needed} arithmetic: {numerics.name} weights keep their "
                f"bytes and are expanded to {wide.linear_dtype} for every product"
            )
            numerics = numerics._replace(
                operand_bytes=numerics.activation_bytes,
                dequantise=True,
                label=stored_label(8 * numerics.weight_bytes, numerics.scales, 16),
            )
    return numerics.in_wide(wide)


def _mean(layers: Mapping[Numerics, int]) -> Numerics:
    """Return one numerics for a product that some layers store otherwise: their mean bytes.

    The arithmetic is that of most layers.
    """
    if len(layers) == 1:
        return next(iter(layers))
    most = max(layers, key=lambda numerics: layers[numerics])
    total = sum(layers.values())
    size = sum(own.weight_bytes * n for own, n in layers.items()) / total
    scales = tuple(
        scale._replace(bytes=scale.bytes * n / total)
        for own, n in layers.items()
        for scale in own.scales
    )
    label = stored_label(8 * size, scales, 16) if most.label.endswith("a16") else most.label
    return most._replace(weight_bytes=size, scales=scales, label=label)
