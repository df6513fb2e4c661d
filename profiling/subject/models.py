"""Build any model directly on its device: random weights in seconds, or real ones from safetensors.

Random weights cost the same time as trained ones; zeros do not (multiplying zeros draws less power
and clocks higher), so every matrix gets normal numbers. The model is made on the device itself with
initialisation switched off, which keeps the buffers that its constructors compute (rotary
frequencies, position ids), and is then filled in one sweep.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    MissingDependencyError,
    UnknownNameError,
    UnknownPrecisionError,
    UnsupportedError,
)
from hardware_specs.files.reading import is_folder, regular_file
from hardware_specs.showing import one_line, shown
from profiling.devices.device import open_device
from profiling.subject.libraries import transformers_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from costmodel.models import ModelConfig

FLOAT_DTYPES = ("fp32", "fp16", "bf16")
#: Their weights are made from bf16 (fp16 where a GPU has no bf16) by `profiling.subject.quantisation`.
QUANTISED_DTYPES = ("w8a16", "w8a8", "w4a16", "fp8")
_ALIASES = {"int8": "w8a8", "int4": "w4a16", "float32": "fp32", "float16": "fp16",
            "bfloat16": "bf16", "half": "fp16"}  # fmt: skip
#: Standard deviation of random matrices: what LLaMA and CLIP configs call `initializer_range`.
WEIGHT_STD = 0.02
#: Elements of the pattern that fills large CPU matrices; odd, so that rows do not line up.
_PATTERN = (1 << 20) + 7


def canonical_dtype(name: str) -> str:
    """Return the dtype label for a name people write.

    Raises:
        UnknownPrecisionError: not a label that a model can be run in.

    >>> canonical_dtype("float16"), canonical_dtype("int4")
    ('fp16', 'w4a16')
    """
    name = str(name)
    label = _ALIASES.get(name.lower(), name.lower())
    if label not in FLOAT_DTYPES and label not in QUANTISED_DTYPES:
        raise UnknownPrecisionError(name, [*FLOAT_DTYPES, *QUANTISED_DTYPES])
    return label


def torch_dtype(label: str) -> torch.dtype:
    """Return the floating dtype that a label computes in; quantised labels compute in bf16."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16}.get(label, torch.bfloat16)


def named(source: str, scale: str | None = None) -> str:
    """Return a model's name with its scale inside it.

    Raises:
        InvalidInputError: the name carries a scale already.

    >>> named("llava-1.5-7b", "layers=4,width=1/4")
    'llava-1.5-7b@layers=4,width=1/4'
    """
    if not scale:
        return source
    if "@" in source:
        raise InvalidInputError(f"{source!r} carries a scale already; drop {scale!r} or the @ part")
    return f"{source}@{scale}"


def transformers_config(source: str | ModelConfig) -> PretrainedConfig:
    """Return the `transformers` config of a model, without its checkpoint's quantisation.

    Args:
        source: whatever `costmodel.models.load_model` takes.

    Raises:
        MissingDependencyError: transformers is not installed.
        InvalidInputError: transformers refuses the config.
    """
    from costmodel.models import config_dict

    auto = transformers_library().AutoConfig
    document = dict(config_dict(source))
    model_type = document.pop("model_type")
    # A shape has no quantised weights: its products are those of the unquantised model.
    for part in (document, document.get("text_config")):
        if isinstance(part, dict):
            part.pop("quantization_config", None)
            part.pop("compression_config", None)
    try:
        return auto.for_model(model_type, **document)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"transformers cannot build {_label(source)!r} (model type {model_type!r}): {error}"
        ) from error


def _label(source: Any) -> str:
    return source if isinstance(source, str) else getattr(source, "name", str(source))


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class that runs a config with a head: multimodal, or a plain causal model.

    Raises:
        UnsupportedError: `transformers` has none for this config.
    """
    auto = transformers_library().models.auto.modeling_auto
    for mapping in (auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, auto.MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping:
            found: Any = mapping[type(config)]
            cls: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
            return cls
    raise UnsupportedError(
        f"transformers has no model with a language head for {config.model_type!r}"
    )


def build_model(
    source: str | ModelConfig,
    *,
    dtype: str = "auto",
    device: str = "cuda",
    weights: str = "random",
    attention: str = "sdpa",
    seed: int = 0,
    divide: Callable[[nn.Module], None] | None = None,
) -> PreTrainedModel:
    """Return a model in evaluation mode on a device.

    Args:
        source: shipped name, path or hub id, possibly with `@layers=..,width=..`.
        dtype: `auto` is the checkpoint's own for real weights and bf16 for random ones; or `fp32`,
            `fp16`, `bf16`, or `w8a16`, `w8a8`, `w4a16`, `fp8` (language model only).
        device: `cuda`, `cuda:N` or `cpu`; `meta` for shapes without weights.
        weights: `random`, or `real` to read safetensors from the folder or hub id `source`.
        attention: attention implementation of `transformers`.
        seed: fixes the random weights.
        divide: leaves the model with a part of its weights, before random ones are made or real ones reach
            the device.

    Raises:
        UnknownModelError: no such model.
        InvalidFileError: no safetensors there, or damaged ones.
        UnknownPrecisionError: no such dtype.
        UnknownNameError: no such attention.
        UnsupportedError: the device cannot run that dtype, or the attention is not installed.
        DeviceUnavailableError: no such device.
        MissingDependencyError: torch, transformers or torchao is not installed.
    """
    own = dtype == "auto"
    label = canonical_dtype("bf16" if own else dtype)
    place = _place(device)
    check_weights(weights)
    check_attention(attention)
    if label in QUANTISED_DTYPES:
        from profiling.subject.quantisation import check_device

        check_device(label, device)
    try:
        if weights == "real":
            model = _load_real(
                source, "auto" if own else torch_dtype(label), place, attention, divide
            )
        else:
            model = _build_random(source, label, place, attention, seed, divide)
    except ImportError as error:
        if isinstance(error, MissingDependencyError):
            raise
        raise UnsupportedError(f"attention {attention!r} cannot run here: {error}") from error
    # Parameters keep `requires_grad`, as `from_pretrained` leaves them: torch folds a product's rows
    # into one matrix by it, so switching it off measures other kernels than people run (on a CPU,
    # a head in bf16 that is fifty times slower).
    model.eval()
    if label in QUANTISED_DTYPES:
        from profiling.subject.quantisation import quantise

        quantise(model, label)
    return model


def _place(device: str) -> torch.device:
    """Return where torch makes a device's tensors, after checking that it can be used here."""
    if device != "meta":
        return open_device(device).place
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "profile") from error
    return torch.device("meta")


def check_weights(weights: str) -> None:
    """Refuse words that name no kind of weights."""
    if weights not in ("random", "real"):
        raise InvalidInputError(f"weights {shown(weights)} is neither 'random' nor 'real'")


def check_attention(attention: str) -> None:
    """Refuse words that name no attention of `transformers`; `owner/name` is a kernel of the hub."""
    if attention in ("eager", "sdpa") or (isinstance(attention, str) and "/" in attention):
        return
    known = transformers_library().modeling_utils.ALL_ATTENTION_FUNCTIONS.valid_keys()
    # Those of a paged cache are for serving, and torch's counters do not see through flex attention.
    there = {"eager", *(name for name in known if "|" not in name)} - {"flex_attention"}
    if not isinstance(attention, str) or attention not in there:
        raise UnknownNameError(attention, sorted(there), "attention")


def _build_random(
    source: str | ModelConfig, label: str, place: torch.device, attention: str, seed: int,
    divide: Callable[[nn.Module], None] | None,
) -> PreTrainedModel:  # fmt: skip
    config = transformers_config(source)
    cls: Any = model_class(config)
    from transformers.initialization import no_init_weights

    try:
        with place, no_init_weights(), nullcontext() if divide is None else _unallocated():
            model: Any = cls._from_config(
                config, dtype=torch_dtype(label), attn_implementation=attention
            )
    except ValueError as error:
        raise UnsupportedError(
            f"transformers cannot build {_label(source)!r} with attention {attention!r}: {error}"
        ) from error
    model.tie_weights()
    if divide is not None:
        divide(model)
        _allocate(model, place)
    if place.type != "meta":
        fill_randomly(model, seed)
    result: PreTrainedModel = model
    return result


@contextmanager
def _unallocated() -> Iterator[None]:
    """Give every parameter made inside the block a shape and no memory; buffers keep theirs."""
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    def empty(_module: nn.Module, _name: str, parameter: Any) -> Any:
        shape = torch.empty_like(parameter, device="meta")
        return torch.nn.Parameter(shape, requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(empty)
    try:
        yield
    finally:
        handle.remove()


def _allocate(model: nn.Module, place: torch.device) -> None:
    """Give every parameter memory on a device; one that two modules share stays one."""
    import torch

    made: dict[int, tuple[Any, Any]] = {}
    for module in model.modules():
        for name, shape in module._parameters.items():
            if shape is None:
                continue
            if id(shape) not in made:
                real = torch.empty_like(shape, device=place)
                real = torch.nn.Parameter(real, requires_grad=shape.requires_grad)
                made[id(shape)] = shape, real
            module._parameters[name] = made[id(shape)][1]


def fill_randomly(model: nn.Module, seed: int = 0) -> None:
    """Give every weight of a model a value: matrices normal(0, 0.02), norm weights 1, biases 0.

    On a CPU one pattern of a million normal numbers is repeated through the matrices, which turns
    minutes for 7B into seconds.
    """
    import torch

    with torch.no_grad():
        parameters = {id(item): (name, item) for name, item in model.named_parameters()}
        device = next(iter(parameters.values()))[1].device
        generator = torch.Generator(device).manual_seed(seed)
        pattern: torch.Tensor | None = None
        for name, parameter in parameters.values():
            if parameter.ndim <= 1:
                is_scale = name.endswith("weight") and "embed" not in name
                parameter.fill_(1.0 if is_scale else 0.0)
            elif device.type == "cuda":
                parameter.normal_(0.0, WEIGHT_STD, generator=generator)
            else:
                if pattern is None or pattern.dtype != parameter.dtype:
                    pattern = torch.empty(_PATTERN).normal_(0.0, WEIGHT_STD, generator=generator)
                    pattern = pattern.to(parameter.dtype)
                flat = parameter.view(-1)
                for start in range(0, flat.numel(), _PATTERN):
                    part = flat[start : start + _PATTERN]
                    part.copy_(pattern[: part.numel()])


def _load_real(
    source: Any, dtype: torch.dtype | str, place: torch.device, attention: str,
    divide: Callable[[nn.Module], None] | None,
) -> PreTrainedModel:  # fmt: skip
    if not isinstance(source, str):
        source = getattr(source, "source", "")
    if "@" in source:
        raise InvalidInputError(
            f"{source!r} is a size-reduced shape, which has no real weights; use random weights"
        )
    transformers = transformers_library()
    from safetensors import SafetensorError

    check_model_folder(source)
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        cls: Any = model_class(config)
        model, found = cls.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (
        AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError,
    ) as error:  # fmt: skip
        if "memory" in str(error).lower():
            raise
        raise InvalidFileError(f"{source}: no weights can be loaded: {_said(error)}") from error
    missing = sorted(found["missing_keys"])
    if missing:
        # What a file lacks is filled with random numbers: those are not the weights asked for.
        raise InvalidFileError(
            f"{source}: its safetensors lack {len(missing)} weights, {missing[0]} among them"
        )
    if divide is not None:
        divide(model)
    result: PreTrainedModel = model.to(place)
    return result


def check_model_folder(source: str) -> None:
    """Refuse a folder of a model with a pipe or a device in it, which would keep a loader for ever.

    Args:
        source: a folder; a hub id is left alone.

    Raises:
        InvalidFileError: one of its files is no regular file.
    """
    if is_folder(source):
        for path in sorted(Path(source).iterdir()):
            if not is_folder(path):
                regular_file(path, "weights file")


def _said(error: Exception) -> str:
    return one_line(error, 300) or type(error).__name__
