"""Explaining anybody's torch.profiler trace, or two of them: where the device's time went, and why."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidInputError, UnknownHardwareError
from profiling.explaining.building import explained
from profiling.explaining.explanation import Explanation
from profiling.tracing.events import read_events

if TYPE_CHECKING:
    from costmodel.calibration import Calibration
    from hardware_specs import HardwareSpec
    from profiling.tracing.events import Trace

__all__ = ["Explanation", "explain"]


def explain(
    trace: str | Path,
    other: str | Path | None = None,
    *,
    model: Any = None,
    hardware: str | Path | HardwareSpec | None = None,
    calibration: Calibration | str | Path | None = "auto",
    visual_tokens: int | None = None,
    image_size: Any = None,
    method: str | None = None,
    keep: int | float | None = None,
) -> Explanation:
    """Return where the device's time went in a trace of torch.profiler, anybody's.

    Device work is linked to ops by correlation id, launch and op, and named by class; layers, their width
    and tokens are found in the products' sizes. attributed + unattributed + copies = all device time.

    Args:
        trace: a `.json` or `.json.gz` Chrome trace, of CUDA, ROCm or a CPU.
        other: a second trace, the run after a method: adds where the cut in tokens went.
        model: a shipped name, a config or a folder: adds the estimate, stage by stage.
        hardware: the device; found by the name in the trace when None.
        calibration: as in `estimate`.
        visual_tokens: visual tokens of the model's run; found in the trace when None.
        image_size: (height, width) of its image, instead.
        method: the method that ran, for the estimate.
        keep: what it was given.

    Raises:
        InvalidFileError: not such a trace, cut short, or nothing in it has a time.
        InvalidInputError: a model, method or device that is not known.

    >>> explain("no.json")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidFileError: no.json is no Chrome trace: there is no such file
    """
    first = _explained(trace, hardware, calibration)
    of_model = {
        "visual_tokens": visual_tokens,
        "image_size": image_size,
        "method": method,
        "keep": keep,
    }
    for name, given in of_model.items():
        if model is None and given is not None:
            raise InvalidInputError(
                f"{name} is for the estimate beside the trace, which needs a model"
            )
    if model is not None:
        from profiling.explaining.against_model import against_model

        ran = first if other is None or method is None else _explained(other, hardware, calibration)
        first = replace(
            first,
            against=against_model(
                ran,
                model,
                visual_tokens=visual_tokens,
                image_size=image_size,
                method=method,
                keep=keep,
            ),
        )
    if other is None:
        return first
    from profiling.explaining.two import compare_traces

    return replace(
        first, comparison=compare_traces(first, _explained(other, hardware, calibration))
    )


def _explained(
    path: str | Path,
    hardware: str | Path | HardwareSpec | None,
    calibration: Calibration | str | Path | None,
) -> Explanation:
    trace = read_events(path)
    notes: list[str] = []
    spec = _device_of(trace, hardware, notes)
    law = None
    if spec is not None and calibration not in (None, "none"):
        from costmodel.calibration import Calibration, best_calibration

        if calibration == "auto":
            law = best_calibration(spec)
        else:
            if not isinstance(calibration, Calibration):
                calibration = Calibration.load(calibration)
            law = calibration.for_hardware(spec)
    return explained(trace, Path(path).name, spec, law, notes)


def _device_of(
    trace: Trace, hardware: str | Path | HardwareSpec | None, notes: list[str]
) -> HardwareSpec | None:
    from hardware_specs import get_hardware, match_device_name

    named = None
    for name in trace.device_names:
        with suppress(UnknownHardwareError):
            # A virtual function is the device itself, handed on to a guest.
            named = named or get_hardware(match_device_name(name.removesuffix(" VF")))
    if hardware is not None:
        given = get_hardware(hardware)
        if named is not None and named.id != given.id:
            notes.append(f"the trace names {trace.device_names[0]!r}, not {given.id}")
        elif trace.on_cpu:
            notes.append(f"the trace holds no device's work: times are a CPU's, roofs {given.id}'s")
        return given
    if named is not None or trace.on_cpu:
        return named
    which = "the trace does not name its device"
    if trace.device_names:
        which = f"{trace.device_names[0]!r} is described by no device file"
    notes.append(f"{which}: there are no roofs; name the device with hardware= (--hardware)")
    return None
