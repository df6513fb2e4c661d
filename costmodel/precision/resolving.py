"""From what was asked, what the checkpoint is and what the device has, to what is priced.

`auto` is the only place where one dtype stands in for another: a checkpoint's own precision where the
device has it, and what the device has where it does not, with a warning. A precision that is named is
priced as named, or refused for the arithmetic that is missing.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from costmodel.precision.arithmetic import computes
from costmodel.precision.checkpoint import Checkpoint, dtype_named, read_checkpoint
from costmodel.precision.formats import FORMATS
from costmodel.precision.layers import linear_layers, matcher
from costmodel.precision.names import parse_precision, spelled
from costmodel.precision.numerics import MODULES, Numerics, Precision, stored_label
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.models import ModelConfig
    from costmodel.precision.schemes import Scheme
    from hardware_specs import HardwareSpec

AUTO = "auto"
#: What stands in for a dtype that a device does not have, best first.
_INSTEAD = {
    "fp16": ("fp16", "bf16", "fp32"),
    "bf16": ("bf16", "fp16", "fp32"),
    "fp32": ("fp32", "bf16", "fp16"),
}


class Resolved(NamedTuple):
    """What is priced, what to say about it, and where it comes from."""

    precision: Precision
    warnings: tuple[str, ...]
    origin: str

    def __repr__(self) -> str:
        """Return the fields that are set, as far as they fit."""
        return brief(self)


def resolve_precision(
    precision: str | Mapping[str, str] | Precision, model: ModelConfig, hardware: HardwareSpec
) -> Resolved:
    """Return the numerics that a request is priced in.

    `auto` is the checkpoint's own precision, else FP16 where the device has it, else what it has.

    Raises:
        UnknownPrecisionError: no such name.
        InvalidFileError: a checkpoint whose precision is unknown, or whose bytes the file cannot tell.
        MissingPeakError: a device with no floating arithmetic at all.

    >>> from costmodel import load_model
    >>> from hardware_specs import get_hardware
    >>> found = resolve_precision("auto", load_model("llava-1.5-7b"), get_hardware("google-tpu-v5e"))
    >>> found.precision.name
    'bf16'
    """
    if not isinstance(precision, str) or spelled(precision) != AUTO:
        if isinstance(precision, str) and AUTO in spelled(precision).replace("=", ",").split(","):
            raise InvalidInputError(f"precision {precision!r}: auto stands alone, for all modules")
        return Resolved(parse_precision(precision), (), "as given")
    checkpoint = checkpoint_of(model)
    if checkpoint is None or (checkpoint.quantisation is None and checkpoint.text is None):
        found, _ = _on_device("fp16", hardware)
        origin = "no checkpoint" if checkpoint is None else "a checkpoint without a dtype"
        return Resolved(parse_precision(found), (), f"auto, {origin}: {found}")
    return _of_checkpoint(checkpoint, model, hardware)


def checkpoint_of(model: ModelConfig) -> Checkpoint | None:
    """Return a checkpoint's own precision as its config says it, or None for a shape alone.

    Raises:
        InvalidFileError: a dtype or a quantisation that is unknown.

    >>> from costmodel import load_model
    >>> checkpoint_of(load_model("llava-1.5-7b")) is None
    True
    """
    return read_checkpoint(model.config_json, model.source) if model.is_checkpoint else None


def _on_device(dtype: str, hardware: HardwareSpec) -> tuple[str, bool]:
    """Return the dtype that a device computes in for one asked for, and whether it is another."""
    for found in _INSTEAD[dtype]:
        if computes(hardware, found):
            return found, found != dtype
    hardware.peak(dtype)  # raises, and names what there is
    return dtype, False


@lru_cache(maxsize=64)
def _of_checkpoint(checkpoint: Checkpoint, model: ModelConfig, hardware: HardwareSpec) -> Resolved:
    warnings: list[str] = []
    wide = {}
    for part, dtype in (("text", checkpoint.text), ("vision", checkpoint.vision)):
        found, another = _on_device(dtype or "fp16", hardware)
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
            computed, _ = _on_device(dtype_named(scheme.compute, where), hardware)
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
