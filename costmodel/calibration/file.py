"""Reading and writing calibrations: JSON with a schema, shipped by name, saved atomically."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.calibration.parameters import (
    ClassParameters,
    Device,
    HeldOut,
    Parameter,
    ShapeCurve,
)
from costmodel.calibration.residual import Residual
from hardware_specs.errors import CalibrationError, InvalidFileError
from hardware_specs.files.reading import as_path, look, read_json, user_path

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = Path(__file__).parent / "data"

SCHEMA_VERSION = 1

_WORDS = ("hardware_id", "device_name", "software", "date", "attribution")
_SOURCED = ("host_s_per_kernel", "host_sync_s", "l2_bandwidth_ratio")


def list_calibrations() -> tuple[str, ...]:
    """Name the shipped calibrations: hardware ids, and `generic` for assumed parameters.

    >>> "generic" in list_calibrations()
    True
    """
    return tuple(sorted(path.stem for path in DATA.glob("*.json")))


def find_calibration(source: str | Path) -> Path:
    """Return the path of the calibration with a shipped name, or of a file of one's own.

    Args:
        source: a name or a path; whatever ends in `.json` or holds a slash is a path.

    Raises:
        CalibrationError: nothing has that name.
        InvalidFileError: no file can have it.
    """
    text = str(source)
    if isinstance(source, str) and os.sep not in text and not text.endswith(".json"):
        if text not in list_calibrations():
            raise CalibrationError(
                f"no calibration named {text!r}; there is: {', '.join(list_calibrations())}; "
                f"or give the path of a file written by `vlm-roofline calibrate`"
            )
        return DATA / f"{text}.json"
    path = user_path(source)
    if look(path) is None:
        raise CalibrationError(
            f"no calibration file {str(path)!r}; shipped are: {', '.join(list_calibrations())}"
        )
    return path


def read_fields(path: Path) -> dict[str, Any]:
    """Return the arguments of `Calibration` that a file holds.

    Args:
        path: from `find_calibration`.

    Raises:
        InvalidFileError: the file does not hold a calibration.
    """
    raw = read_json(path, "calibration")
    if path.parent == DATA:
        # What ships was checked when it was tested: the check costs as long as the rest of a cold start.
        return _fields(raw)
    return _fields(checked(raw, path))


def checked(raw: Any, path: Path) -> dict[str, Any]:
    """Return a calibration's document with its defaults.

    Raises:
        InvalidFileError: it is none.
    """
    from pydantic import ValidationError

    from costmodel.calibration.schema import CalibrationDocument

    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise InvalidFileError(
            f"{path} has calibration schema_version {version!r}; "
            f"this program reads {SCHEMA_VERSION}"
        )
    try:
        document = CalibrationDocument.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidFileError(f"{path} is no calibration: {where}: {first['msg']}") from None
    return document.model_dump()


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    device = document["device"]
    classes = [_class(entry) for entry in document["classes"]]
    return dict(
        **{name: document[name] for name in _WORDS},
        device=None if device is None else _device(**device),
        classes={(entry.op_class, entry.dtype): entry for entry in classes},
        **{name: document[name]["value"] for name in _SOURCED},
        intervals={name: _parameter(document[name]) for name in _SOURCED},
        notes={name: document[name]["provenance"] for name in _SOURCED},
        warnings=tuple(document["warnings"]),
    )


def _device(peaks_flop_per_s: Mapping[str, float], **rest: Any) -> Device:
    return Device(peaks=dict(peaks_flop_per_s), **rest)


def _parameter(number: Mapping[str, Any]) -> Parameter:
    return Parameter(number["value"], number.get("low"), number.get("high"))


def _class(entry: Mapping[str, Any]) -> ClassParameters:
    held_out, residual = entry.get("held_out"), entry.get("residual")
    return ClassParameters(
        op_class=entry["op_class"],
        dtype=entry["dtype"],
        parameters={name: _parameter(each) for name, each in entry["parameters"].items()},
        provenance=entry["provenance"],
        points=entry["points"],
        quantiles=tuple((float(x), float(y)) for x, y in entry["quantiles"]),
        held_out=None if held_out is None else HeldOut(**held_out),
        kernels=entry.get("kernels", ""),
        shapes=tuple(
            ShapeCurve(s["n"], s["k"], tuple(s["rows"]), tuple(s["log_ratios"]))
            for s in entry.get("shapes", ())
        ),
        residual=None
        if residual is None
        else Residual(**{n: tuple(v) for n, v in residual.items()}),
        growth=entry.get("growth", 0.0),
    )


def document_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON document of a calibration.

    Args:
        fields: the arguments of `Calibration`.
    """
    device = None if fields["device"] is None else asdict(fields["device"])
    return {
        "schema_version": SCHEMA_VERSION,
        **{name: fields[name] for name in _WORDS},
        "device": None if device is None else {"peaks_flop_per_s": device.pop("peaks"), **device},
        **{
            name: {
                **_number(fields["intervals"].get(name), fields[name]),
                "provenance": fields["notes"].get(name, "assumed"),
            }
            for name in _SOURCED
        },
        "classes": [_class_document(entry) for entry in fields["classes"].values()],
        "warnings": list(fields["warnings"]),
    }


def _number(parameter: Parameter | None, value: float) -> dict[str, float]:
    low, high = (None, None) if parameter is None else (parameter.low, parameter.high)
    document = {"value": value, "low": low, "high": high}
    return {name: _rounded(number) for name, number in document.items() if number is not None}


def _rounded(number: float) -> float:
    """Keep six digits: more than any measurement, fewer than make a file unreadable."""
    return float(f"{number:.6g}")


def _class_document(entry: ClassParameters) -> dict[str, Any]:
    document: dict[str, Any] = {
        "op_class": entry.op_class,
        "dtype": entry.dtype,
        "provenance": entry.provenance,
        "points": entry.points,
        "kernels": entry.kernels,
        "parameters": {name: _number(p, p.value) for name, p in entry.parameters.items()},
        "quantiles": [[x, _rounded(y)] for x, y in entry.quantiles],
    }
    if entry.growth:
        document["growth"] = entry.growth
    if entry.held_out is not None:
        document["held_out"] = {
            name: _rounded(value) if isinstance(value, float) else value
            for name, value in asdict(entry.held_out).items()
        }
    if entry.shapes:
        document["shapes"] = [
            {
                **asdict(each),
                "rows": list(each.rows),
                "log_ratios": [round(ratio, 4) for ratio in each.log_ratios],
            }
            for each in entry.shapes
        ]
    if entry.residual is not None:
        sizes = {name: [int(v) for v in getattr(entry.residual, name)] for name in "mnk"}
        weights = [round(weight, 4) for weight in entry.residual.weights]
        document["residual"] = {**sizes, "weights": weights}
    return document


def write_document(document: Mapping[str, Any], path: str | Path) -> None:
    """Write a calibration's JSON file, and its folder where that is missing.

    Args:
        document: from `document_of`.
        path: the file.

    Raises:
        OutputError: the file cannot be written.
    """
    from hardware_specs.files.writing import prepare_folder, write_file

    target = as_path(path)
    prepare_folder(target.parent)
    write_file(target, _pretty(document))


def _pretty(document: Mapping[str, Any]) -> str:
    """Return JSON with short containers, and numbers without names, on one line each."""

    def render(value: Any, indent: int) -> str:
        flat = json.dumps(value, allow_nan=False)
        if not isinstance(value, (dict, list)) or len(flat) + indent <= 100:
            return flat
        if isinstance(value, list) and all(isinstance(each, (int, float)) for each in value):
            return flat
        pad, end = " " * (indent + 1), "\n" + " " * indent
        if isinstance(value, dict):
            items = [f"{pad}{json.dumps(k)}: {render(v, indent + 1)}" for k, v in value.items()]
            return "{\n" + ",\n".join(items) + end + "}"
        return "[\n" + ",\n".join(pad + render(v, indent + 1) for v in value) + end + "]"

    return render(document, 0) + "\n"
