"""Precision files that quantising programs write beside config.json, as a `quantization_config`.

| file | written by | read as |
|---|---|---|
| quantize_config.json | AutoGPTQ, GPTQModel | gptq |
| quant_config.json | AutoAWQ, llm-awq | awq |
| hf_quant_config.json | NVIDIA ModelOpt | modelopt |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import look, read_json
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from pathlib import Path

#: Keys of a quantisation, in a whole config or in a part of it.
QUANTISED = ("quantization_config", "compression_config")
#: File -> the method that it stands for unless it names one itself.
FILES = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}


def precision_beside(config: Path) -> dict[str, Any] | None:
    """Return the `quantization_config` that a file beside a config.json holds, or None without one.

    Raises:
        InvalidFileError: a file that is broken, or two of them.
    """
    if config.name != "config.json":
        return None
    found = [config.with_name(name) for name in FILES if look(config.with_name(name)) is not None]
    if not found:
        return None
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InvalidFileError(
            f"{config}: {names} both tell the weights' precision; keep the one that holds"
        )
    document = read_json(found[0], "model config")
    inner = document.get("quantization", document) if isinstance(document, dict) else document
    if not isinstance(inner, dict):
        raise InvalidFileError(f"{found[0]}: holds {shown(inner)} where a JSON object must be")
    values = {"quant_method": FILES[found[0].name], **inner}
    if values["quant_method"] == "modelopt":
        cache = values.pop("kv_cache_quant_algo", None)
        if cache not in (None, "FP8"):
            raise InvalidFileError(
                f"{found[0]}: kv_cache_quant_algo is {shown(cache)}; there is FP8; give precision= "
                "(--precision) to price another format"
            )
        if cache is not None:
            values["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    return values
