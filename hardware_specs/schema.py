"""The schema of a device file, checked before anything is computed from it.

Unknown keys, numbers that are not positive and texts where numbers belong are refused. The schema
is written for pydantic's validation engine directly: building it takes a millisecond, the same
records as pydantic model classes take thirty, and every look-up by a new process would pay that.

A file looks like this; a bare number stands for a number whose source is the user:

    id: my-gpu                      # the file's name
    name: My GPU
    vendor: Me
    architecture: One
    memory: {nominal_bytes: 17179869184, bandwidth_bytes_per_s: 500.0e+9}
    peaks:
      fp16.matrix.acc32: {value: 100.0e+12, source: my_sheet, evidence: T}
      fp32.vector: 25.0e+12
    sources:
      my_sheet: the data sheet of my GPU
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core import core_schema as cs

from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Callable

#: How a number was read; `hardware_specs.sources.EVIDENCE` says what each code means.
EVIDENCE_CODES = (
    *("T", "L", "l", "M", "3", "A"),
    *("T+A", "L+A", "l+A", "M+A", "3+A"),
    *("measured", "user"),
)

_NUMERAL = re.compile(r"(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(value: object) -> object:
    # YAML 1.1 reads 312e12 and 3.1e12 as text: it wants a dot and a signed exponent.
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        return float(value)
    return value


def _whole(value: object) -> object:
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_quantity(value: object) -> object:
    return value if isinstance(value, dict) else {"value": value}


def _code(value: object) -> object:
    return "3" if value == 3 else value


def _before(function: Callable[[Any], Any], schema: cs.CoreSchema) -> cs.CoreSchema:
    return cs.no_info_before_validator_function(function, schema)


def _record(
    required: dict[str, cs.CoreSchema], optional: dict[str, cs.CoreSchema]
) -> cs.CoreSchema:
    fields = {key: cs.typed_dict_field(value, required=True) for key, value in required.items()}
    fields |= {key: cs.typed_dict_field(value, required=False) for key, value in optional.items()}
    return cs.typed_dict_schema(fields, extra_behavior="forbid")


_NUMBER = _before(_number, cs.float_schema(gt=0, allow_inf_nan=False, strict=True))
_WHOLE = _before(_whole, cs.int_schema(gt=0, strict=True))
_TEXT = cs.str_schema(min_length=1, strict=True)
_TEXTS = cs.tuple_variable_schema(_TEXT)
_FLAG = cs.bool_schema(strict=True)
_ORIGIN = {
    "source": _before(_as_list, cs.tuple_variable_schema(_TEXT, min_length=1)),
    "evidence": _before(_code, cs.literal_schema(list(EVIDENCE_CODES))),
    "note": _TEXT,
    "others_say": cs.dict_schema(_TEXT, cs.union_schema([_NUMBER, _TEXT])),
}


def _quantity(value: cs.CoreSchema, **more: cs.CoreSchema) -> cs.CoreSchema:
    return _before(_as_quantity, _record({"value": value}, _ORIGIN | more))


_MEMORY = _record(
    {"bandwidth_bytes_per_s": _NUMBER},
    {
        "label": _TEXT,
        "kind": _TEXT,
        "nominal_bytes": _WHOLE,
        "reported_bytes": _quantity(_WHOLE),
        "bus_bits": _WHOLE,
        "data_rate_bits_per_pin_per_s": _NUMBER,
        **_ORIGIN,
    },
)
_LINK = _record(
    {},
    {
        "generation": _WHOLE,
        "lanes": _WHOLE,
        "bytes_per_s_per_direction": _NUMBER,
        "bytes_per_s_bidirectional": _NUMBER,
    },
)
LINK_KINDS = ("pcie", "nvlink", "nvlink_c2c", "infinity_fabric", "ethernet", "ici")
_INTERCONNECT = _record({}, {**dict.fromkeys(LINK_KINDS, _LINK), "absent": _TEXTS, **_ORIGIN})
_MEASURED = _record(
    {
        "what": cs.literal_schema(["gemm", "gemm_one_thread", "mamf"]),
        "dtype": _TEXT,
        "source": _TEXT,
    },
    {
        **dict.fromkeys(("max", "mean", "median_mnk_ge_4096", "p90_mnk_ge_4096"), _NUMBER),
        **dict.fromkeys(("points", "points_mnk_ge_4096"), _WHOLE),
    },
)
_DEVICE = _record(
    {
        "name": _TEXT,
        "vendor": _TEXT,
        "architecture": _TEXT,
        "memory": _MEMORY,
        "peaks": cs.dict_schema(_TEXT, _quantity(_NUMBER, clock_inferred=_FLAG), min_length=1),
    },
    {
        "id": _TEXT,
        "chip": _TEXT,
        "year": _WHOLE,
        "device_names": _TEXTS,
        "device_granularity": _TEXT,
        "boards": _TEXTS,
        "compute_capability": _quantity(_TEXT),
        **dict.fromkeys(("boost_hz", "matrix_clock_hz", "tdp_w"), _quantity(_NUMBER)),
        **dict.fromkeys(("sm_count", "l2_bytes", "llc_bytes"), _quantity(_WHOLE)),
        "interconnect": _INTERCONNECT,
        "flops_per_clock_per_sm": cs.dict_schema(_TEXT, _NUMBER),
        "unsupported": _TEXTS,
        "measured_not_peak": cs.tuple_variable_schema(_MEASURED),
        "notes": _TEXTS,
        "sources": cs.dict_schema(_TEXT, _TEXT),
    },
)
_VALIDATOR = SchemaValidator(_DEVICE)


def check_device(document: object) -> dict[str, Any]:
    """Return the document of a device file as checked plain data; absent keys stay absent.

    Raises:
        InvalidFileError: it breaks the schema; the message names each place.

    >>> check_device({"name": "My GPU"})
    Traceback (most recent call last):
        ...
    hardware_specs.errors.InvalidFileError: vendor: field required; architecture: field required; \
memory: field required; peaks: field required
    """
    try:
        checked: dict[str, Any] = _VALIDATOR.validate_python(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg'][:1].lower()}{e['msg'][1:]}"
            for e in found
        ]
        raise InvalidFileError(first_of(problems)) from None
    return checked


def first_of(problems: list[str]) -> str:
    """Return the first six problems as one message that counts the others."""
    more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
    return "; ".join(problems[:6]) + more
