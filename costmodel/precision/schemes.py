"""What a `quantization_config` says its weights are, one reader per `quant_method`.

Keys and defaults are those of `transformers`' classes in utils/quantization_config.py (5.23), and where
only a serving engine reads a layout, of that engine. A scheme whose bytes the file does not tell is
refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.precision.formats import FORMATS
from costmodel.precision.numerics import (
    MODULES,
    Numerics,
    Scale,
    both_narrow,
    stored_label,
    weight_only,
)
from hardware_specs.errors import InvalidFileError, UnknownNameError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bits that packed integers come in.
_BITS = (2, 3, 4, 8)
_DECODER = ("text",)


class Scheme(NamedTuple):
    """How some of a checkpoint's linear layers are stored.

    Attributes:
        numerics: of those layers.
        modules: of a model in which such layers may be.
        targets: patterns of the layers; empty is all of those modules.
        excepted: patterns of the layers that are not quantised.
        globs: whether the patterns are those of a shell, in place of regular expressions.
        compute: dtype that the file names for the products; empty is the checkpoint's own.
    """

    numerics: Numerics
    modules: tuple[str, ...]
    targets: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    globs: bool = False
    compute: str = ""


class Quantisation(NamedTuple):
    """All that a `quantization_config` says: its method, its schemes, bits of the KV cache if said."""

    method: str
    schemes: tuple[Scheme, ...]
    kv_bits: int | None = None


class Keys:
    """A `quantization_config`, read key by key with the file's name in every message."""

    def __init__(self, values: Any, file: str, path: str) -> None:
        """Keep the object and where it stands."""
        self.file, self.path = file, path
        if not isinstance(values, dict):
            raise self.fail("", f"must be an object, not {shown(values)}")
        self.values: dict[str, Any] = values

    def fail(self, key: str, problem: str) -> InvalidFileError:
        """Return the error for a key."""
        name = f"{self.path}.{key}" if key else self.path
        return InvalidFileError(
            f"{self.file}: {name} {problem}; give precision= (--precision) to price another format"
        )

    def whole(self, key: str, default: int | None, *others: str, least: int = 1) -> int:
        """Return a whole number under a key or one of its older names."""
        found = next((name for name in (key, *others) if self.values.get(name) is not None), key)
        value = self.values.get(found)
        if value is None:
            if default is None:
                raise self.fail(key, "is missing, and without it the weights' size is unknown")
            return default
        if type(value) is not int or not (least <= value <= 1_000_000 or value == -1):
            raise self.fail(found, f"must be a whole number, not {shown(value)}")
        return value

    def bits(self, key: str, default: int | None, *others: str) -> int:
        """Return how many bits a weight has."""
        value = self.whole(key, default, *others)
        if value not in _BITS:
            raise self.fail(key, f"is {value}; there are {', '.join(map(str, _BITS))}")
        return value

    def group(self, key: str, default: int, *others: str) -> int:
        """Return the weights of a group; 0 where -1 says that a whole column shares its scale."""
        size = self.whole(key, default, *others)
        return 0 if size == -1 else size

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.fail(key, f"must be true or false, not {shown(value)}")
        return value

    def names(self, *keys: str) -> tuple[str, ...] | None:
        """Return a list of strings under the first key that has one, or None."""
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                    raise self.fail(key, f"must be a list of names, not {shown(value)}")
                return tuple(value)
        return None

    def pair(self, key: str) -> tuple[int, int]:
        """Return the two sides of a block, inputs first; files name outputs first."""
        block: Any = self.values.get(key)
        whole = isinstance(block, list) and all(type(side) is int and side > 0 for side in block)
        if not whole or len(block) != 2:
            raise self.fail(key, f"must be two whole numbers, not {shown(block)}")
        return block[1], block[0]

    def kv_bits(self) -> int | None:
        """Return the bits of the KV cache, None where they are not said."""
        key = "kv_cache_scheme"
        return self.inner(key).bits("num_bits", 8) if self.values.get(key) else None

    def inner(self, key: str) -> Keys:
        """Return the object under a key."""
        return Keys(self.values[key], self.file, f"{self.path}.{key}")


def _awq(keys: Keys) -> Quantisation:
    bits = keys.bits("bits", 4, "w_bit")
    group = keys.group("group_size", 128, "q_group_size")
    zeros = (Scale(bits / 8, group),) if keys.flag("zero_point", default=True) else ()
    numerics = weight_only("awq", bits, (Scale(2, group), *zeros))
    return _plainly("awq", numerics, _DECODER, keys.names("modules_to_not_convert") or ())


def _gptq(keys: Keys) -> Quantisation:
    """Weights, scales; zero points unless symmetric; the order of the inputs where it is not their own.

    `dynamic` of GPTQModel leaves layers out (`-:pattern`); layers of other bits are refused.
    """
    bits = keys.bits("bits", None)
    group = keys.group("group_size", 128)
    scales = [Scale(2, group)]
    if not keys.flag("sym", default=True):
        scales.append(Scale(bits / 8, group))
    if keys.flag("desc_act", default=False):
        scales.append(Scale(4, 1, 0))
    dynamic = keys.values.get("dynamic") or {}
    if not isinstance(dynamic, dict) or not all(key.startswith("-:") for key in dynamic):
        raise keys.fail("dynamic", "gives some layers bits of their own, which is not read")
    excepted = tuple(f"re:{key[2:]}" for key in dynamic)
    modules = (*_DECODER, "lm_head") if keys.flag("lm_head", default=False) else _DECODER
    return _plainly(
        "gptq", weight_only("gptq", bits, tuple(scales)), modules,
        excepted + (keys.names("modules_to_not_convert") or ()),
    )  # fmt: skip


def _bitsandbytes(keys: Keys) -> Quantisation:
    excepted = _skipped(keys, "llm_int8_skip_modules", "modules_to_not_convert")
    if keys.flag("load_in_4bit", default=False) or keys.flag("_load_in_4bit", default=False):
        kind = keys.values.get("bnb_4bit_quant_type") or "fp4"
        if kind not in ("nf4", "fp4"):
            raise keys.fail("bnb_4bit_quant_type", f"is {shown(kind)}; there are nf4, fp4")
        double = keys.flag("bnb_4bit_use_double_quant", default=False)
        numerics = FORMATS["nf4-double" if double else "nf4"].text
        if kind == "fp4":  # the same bytes under other code words
            numerics = numerics._replace(name="fp4-bnb-double" if double else "fp4-bnb")
        compute = keys.values.get("bnb_4bit_compute_dtype") or ""
        # What float32 says here is the class's default; the layer computes in its input's dtype then.
        compute = "" if compute in ("float32", "torch.float32") else compute
        return _plainly("bitsandbytes", numerics, MODULES, excepted, compute=compute)
    if keys.flag("load_in_8bit", default=False) or keys.flag("_load_in_8bit", default=False):
        return _plainly("bitsandbytes", FORMATS["int8-bnb"].text, MODULES, excepted)
    raise keys.fail("load_in_4bit", "and load_in_8bit are both false: the weights' size is unknown")


def _fp8(keys: Keys) -> Quantisation:
    """One scale per block, or per matrix where no block is named; FP8 operands."""
    name, scale = "fp8", Scale(4, 0, 0)
    if keys.values.get("weight_block_size") is not None:
        block = keys.pair("weight_block_size")
        kind = keys.values.get("scale_fmt") or "float"
        sizes = {"float": 4, "fp32": 4, "ue8m0": 1}
        if kind not in sizes:
            raise keys.fail("scale_fmt", f"is {shown(kind)}; there are {', '.join(sizes)}")
        name, scale = "fp8-block", Scale(sizes[kind], *block)
    numerics = both_narrow(name, 8, (scale,), "fp8", name)
    return _plainly(
        "fp8", numerics, MODULES, _skipped(keys, "modules_to_not_convert", "ignored_layers")
    )


def _fbgemm(keys: Keys) -> Quantisation:
    numerics = both_narrow("fbgemm-fp8", 8, (Scale(4),), "fp8", "fp8")
    return _plainly("fbgemm_fp8", numerics, MODULES, _skipped(keys, "modules_to_not_convert"))


def _four_bits(name: str) -> Callable[[Keys], Quantisation]:
    def read(keys: Keys) -> Quantisation:
        skipped = keys.names("modules_to_not_convert", "ignore") or ()
        return _plainly(name, FORMATS[name].text, _DECODER, skipped)

    return read


def _modelopt(keys: Keys) -> Quantisation:
    """NVIDIA's ModelOpt: the name of an algorithm, and patterns of the layers that it leaves out."""
    excepted = keys.names("ignore", "exclude_modules") or ()
    algorithm = keys.values.get("quant_algo")
    known = {
        "FP8": both_narrow("fp8", 8, (Scale(4, 0, 0),), "fp8", "fp8"),
        "NVFP4": FORMATS["nvfp4"].text,
    }
    if algorithm not in known:
        raise keys.fail("quant_algo", f"is {shown(algorithm)}; there are {', '.join(known)}")
    scheme = Scheme(known[algorithm], MODULES, excepted=excepted, globs=True)
    return Quantisation("modelopt", (scheme,), keys.kv_bits())


def _compressed(keys: Keys) -> Quantisation:
    """Groups of layers, each with its weights' bits, type and blocks; `ignore` names the rest."""
    sparsity = keys.values.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        raise keys.fail("sparsity_config", f"has format {shown(sparsity.get('format'))}: not read")
    excepted = keys.names("ignore") or ()
    groups = keys.values.get("config_groups")
    if not isinstance(groups, dict):
        raise keys.fail("config_groups", "is missing, and without it the weights' size is unknown")
    schemes = []
    for name in groups:
        group = keys.inner("config_groups").inner(name)
        targets = group.names("targets") or ()
        if any(target.split(":")[-1] == "Linear" for target in targets):
            targets = ()
        layout = group.values.get("format") or keys.values.get("format")
        if group.values.get("weights") is None or layout == "dense":
            continue
        numerics = _group_numerics(group, layout)
        schemes.append(Scheme(numerics, MODULES, targets, excepted))
    return Quantisation("compressed-tensors", tuple(schemes), keys.kv_bits())


#: Layouts of compressed-tensors that pack weights to their bits, and those of a byte per weight.
_PACKED = ("pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized")
_BYTES = ("naive-quantized", "int-quantized", "float-quantized")


def _group_numerics(group: Keys, layout: Any) -> Numerics:
    weights = group.inner("weights")
    bits, kind = weights.bits("num_bits", None), weights.values.get("type", "int")
    if kind not in ("int", "float"):
        raise weights.fail("type", f"is {shown(kind)}; there are int, float")
    if layout is None:
        layout = _PACKED[0] if bits < 8 else _BYTES[0]
    if layout not in (*_PACKED, *_BYTES):
        raise group.fail("format", f"is {shown(layout)}; {', '.join((*_PACKED, *_BYTES))} are read")
    stored = bits if layout in _PACKED else 8
    scales = _group_scales(weights, bits, kind, layout)
    operands = group.values.get("input_activations")
    if operands is None:
        name = f"w{bits}a16" if kind == "int" else f"fp{bits}-weights"
        return weight_only(name, stored, scales)
    narrow = group.inner("input_activations").bits("num_bits", 8)
    arithmetic = f"int{narrow}" if kind == "int" else f"fp{narrow}"
    label = stored_label(stored, scales, narrow) if kind == "int" else arithmetic
    name = f"w{bits}a{narrow}" if kind == "int" else "nvfp4" if bits == 4 else "fp8"
    both = both_narrow(name, narrow, scales, arithmetic, label)
    return both._replace(weight_bytes=stored / 8, dequantise=bits < narrow)


def _group_scales(weights: Keys, bits: int, kind: str, layout: str) -> tuple[Scale, ...]:
    strategy = weights.values.get("strategy")
    size = weights.group("group_size", -1)
    if strategy is None:
        strategy = "group" if size else "tensor"
    if strategy == "tensor_group":
        return Scale(1, size or 16), Scale(4, 0, 0)
    if strategy == "tensor":
        return (Scale(2, 0, 0),)
    if strategy == "block":
        return (Scale(2, *weights.pair("block_structure")),)
    if strategy not in ("group", "channel"):
        raise weights.fail("strategy", f"is {shown(strategy)}: the scales' size is unknown")
    inputs = size if strategy == "group" else 0
    scales = [Scale(1 if layout == _PACKED[2] else 2, inputs)]
    if kind == "int" and not weights.flag("symmetric", default=True):
        scales.append(Scale(bits / 8 if layout == _PACKED[0] else 1, inputs))
    if weights.values.get("actorder") == "group":
        scales.append(Scale(4, 1, 0))
    return tuple(scales)


def _skipped(keys: Keys, *names: str) -> tuple[str, ...]:
    """Return the layers left out: the file's, or the head where it names none, as `transformers`."""
    found = keys.names(*names)
    return ("lm_head",) if found is None else found


def _plainly(
    method: str,
    numerics: Numerics,
    modules: tuple[str, ...],
    excepted: tuple[str, ...],
    compute: str = "",
) -> Quantisation:
    return Quantisation(method, (Scheme(numerics, modules, excepted=excepted, compute=compute),))


READERS: dict[str, Callable[[Keys], Quantisation]] = {
    "awq": _awq,
    "gptq": _gptq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "modelopt": _modelopt,
    "mxfp4": _four_bits("mxfp4"),
    "nvfp4": _four_bits("nvfp4"),
}


def read_quantisation(keys: Keys) -> Quantisation:
    """Return what a `quantization_config` says.

    Raises:
        InvalidFileError: a method that is unknown, or one whose bytes the object does not tell.

    >>> found = read_quantisation(Keys({"quant_method": "awq"}, "config.json", "quantization_config"))
    >>> found.schemes[0].numerics.stored_bytes(4096, 4096)  # 4 bits + (16 + 4) bits per 128
    8716288.0
    """
    method = keys.values.get("quant_method")
    if method is None and any(key.startswith(("load_in_", "_load_in_")) for key in keys.values):
        method = "bitsandbytes"
    if method is None and "config_groups" in keys.values:
        method = "compressed-tensors"
    reader = READERS.get(method) if isinstance(method, str) else None
    if reader is None:
        near = UnknownNameError(method, READERS).near_matches if isinstance(method, str) else ()
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise keys.fail(
            "quant_method",
            f"is {shown(method)}{hint}, whose bytes are not known here; "
            f"there are {', '.join(READERS)}",
        )
    if keys.flag("dequantize", default=False):
        return Quantisation(str(method), ())
    return reader(keys)
