"""Measurements joined with their estimates, the gap split into parts, and a summary."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.parallel.exchange import apart
from costmodel.written_tables import WrittenTable
from hardware_specs.errors import VlmRooflineError
from profiling.reconciling.devices import device_of
from profiling.reconciling.energy import energy_rows
from profiling.reconciling.joining import Predictor
from profiling.reconciling.opclasses import by_class, op_rows
from profiling.reconciling.reading import listed, profiles_under, read
from profiling.reconciling.rows import COLUMNS, identity, stage_rows
from profiling.reconciling.summary import summarise_rows
from profiling.records.model_names import is_shipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from costmodel.calibration import Calibration
    from costmodel.energy import PowerModel
    from hardware_specs import HardwareSpec
    from profiling.reconciling.joining import Prediction
    from profiling.records.measurement import Measurement

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Reconciliation:
    """Measured quantities beside predicted ones.

    Attributes:
        rows: one per run and stage, keyed by `COLUMNS`.
        summary: errors by stage, regime, mode and method; knees; FLOPs, memory, energy; flags.
        hardware: the device.
        calibration: its calibration, None without one.
        software: what ran, by name.
        dates: when the first and the last run began.
        skipped: runs that hold no time, with the reason and what was predicted.
        energy: one row per measured energy window.
        ops: one row per profiler pass, stage and op, from `op_rows`.
        power: the powers by regime that the windows give; None without one.
        notes: what the numbers rest on.
        records: the runs themselves, with every sample.
    """

    rows: tuple[dict[str, Any], ...]
    summary: dict[str, Any]
    hardware: HardwareSpec
    calibration: Calibration | None
    software: dict[str, str]
    dates: tuple[str, str]
    skipped: tuple[dict[str, Any], ...] = ()
    energy: tuple[dict[str, Any], ...] = ()
    ops: tuple[dict[str, Any], ...] = ()
    power: PowerModel | None = None
    notes: tuple[str, ...] = ()
    records: tuple[Measurement, ...] = ()

    @property
    def calibration_name(self) -> str | None:
        """The calibration's name, None without one."""
        return None if self.calibration is None else str(self.calibration.name)

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, one per run and stage."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.rows], columns=list(COLUMNS))

    def to_dict(self) -> dict[str, Any]:
        """Return the whole as the JSON document of `--json`, `schema_version` 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "reconciliation",
            "hardware": self.hardware.id,
            "device_name": self.hardware.name,
            "calibration": self.calibration_name,
            "software": dict(self.software),
            "dates": list(self.dates),
            "summary": self.summary,
            "rows": [{**row, "flags": list(row["flags"])} for row in self.rows],
            "skipped": [dict(row) for row in self.skipped],
            "energy": [{**row, "flags": list(row["flags"])} for row in self.energy],
            "ops": [dict(row) for row in self.ops],
            "op_classes": [dict(row) for row in by_class(self.ops)],
            "power": None if self.power is None else self.power.to_dict(),
            "notes": list(self.notes),
        }

    def of_stage(self, stage: str) -> tuple[dict[str, Any], ...]:
        """Return the rows of one stage, or of `total`."""
        return tuple(row for row in self.rows if row["stage"] == stage)

    def _repr_html_(self) -> str:
        rows = tuple(
            (
                row["method"], str(row["visual_tokens"]), row["mode"], row["stage"],
                f"{row['measured_s'] * 1e3:.3f}", f"{row['predicted_s'] * 1e3:.3f}",
                f"{row['relative_error']:+.1%}",
            )
            for row in self.rows
        )  # fmt: skip
        headings = ("method", "tokens", "mode", "stage", "measured ms", "predicted ms", "error")
        return WrittenTable(repr(self)[1:-1], headings, rows).html()

    def __repr__(self) -> str:
        """Name the device and the headline error."""
        total = self.summary["time"].get("total")
        error = "no total" if total is None else f"MAPE {total['mape']:.1%}"
        return (
            f"<Reconciliation of {self.summary['runs']} runs on {self.hardware.id}, "
            f"calibration {self.calibration_name or 'none'}: {error}>"
        )


def reconcile(
    measurements: Any,
    calibration: Calibration | str | Path | None = "auto",
    *,
    hardware: str | Path | HardwareSpec | None = None,
    power: PowerModel | None = None,
) -> Reconciliation:
    """Join every measured run and stage with its estimate and split the gap between them.

    Args:
        measurements: a folder or file of records, several of them, records, or the DataFrame of
            `load_measurements`.
        calibration: the device's own, a file of it, or a shipped name; `auto` is the shipped one of
            the device, else the generic law. `none` or None compares with the ideal roofline, and
            everything above it stays unexplained.
        hardware: the device they ran on; found by its exact name when None.
        power: the device's power by regime; fitted from the records' own energy windows when None,
            each window from the others.

    Raises:
        InvalidInputError: no measurement, several devices, a device or model nothing describes.
        CalibrationError: a calibration of another device.

    >>> reconcile([])
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: there is no measurement to reconcile
    """
    if not isinstance(measurements, (str, Path)) and not hasattr(measurements, "columns"):
        measurements = listed(measurements)
    records = read(measurements)
    loaded = _loaded(calibration, hardware, records)
    spec = device_of(records, hardware, loaded)
    predictor = Predictor(spec, loaded)
    measured, skipped = [], []
    for record in records:
        if record.status == "ok" and record.stages:
            measured.append(record)
        else:
            skipped.append(_skipped(record, predictor))
    spreads = _spreads(measured)
    rows: list[dict[str, Any]] = []
    runs = []
    for record in measured:
        try:
            runs.append((record, predictor.predict(record)))
        except VlmRooflineError as error:
            if record.boundary is None:
                raise
            # Another tool runs models that nobody here can price.
            skipped.append({**_skipped(record, predictor), "reason": _why_unpriced(record, error)})
    for record, prediction in runs:
        rows += stage_rows(record, prediction, spec, spreads[record.configuration])
    energy, fitted = energy_rows(runs, spec, power)
    starts = sorted(record.started_at for record in records if record.started_at)
    return Reconciliation(
        rows=tuple(rows),
        summary=summarise_rows(rows, tuple(skipped), energy, len(runs)),
        hardware=spec,
        calibration=loaded,
        software=_software(records),
        dates=(starts[0], starts[-1]) if starts else ("", ""),
        skipped=tuple(skipped),
        energy=energy,
        ops=op_rows(profiles_under(measurements), predictor),
        power=fitted,
        notes=tuple(_notes(loaded, {id(p): p for _, p in runs}.values())),
        records=tuple(records),
    )


def _loaded(
    calibration: Calibration | str | Path | None,
    hardware: str | Path | HardwareSpec | None,
    records: Sequence[Measurement],
) -> Calibration | None:
    if calibration is None or calibration == "none":
        return None
    from costmodel.calibration import Calibration, best_calibration

    if calibration == "auto":
        return best_calibration(device_of(records, hardware, None))
    found = calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)
    if found.device is None:
        # Parameters of no device in particular are bound to the one that was measured.
        found = found.for_hardware(device_of(records, hardware, None))
    return found


def _skipped(record: Measurement, predictor: Predictor) -> dict[str, Any]:
    """Return why a run has no times, and whether the model predicted the out-of-memory."""
    row = {**identity(record, None), "status": record.status, "reason": record.error}
    row["predicted_peak_bytes"] = row["capacity_bytes"] = row["predicted_to_fit"] = None
    if record.status == "out-of-memory":
        try:
            memory = predictor.predict(record).memory
        except VlmRooflineError as error:
            return {**row, "reason": f"{record.error}; and not predictable: {error}"}
        row["predicted_peak_bytes"] = int(memory.peak_memory_bytes)
        row["capacity_bytes"] = memory.capacity_bytes
        row["predicted_to_fit"] = None if memory.fits is None else bool(memory.fits)
    return row


def _why_unpriced(record: Measurement, error: VlmRooflineError) -> str:
    if record.model_config is None and not is_shipped(record.configuration.model):
        model = record.configuration.model
        return f"{model} is not shipped: import it again with its config, --model {model}=FOLDER"
    return str(error)


def _spreads(records: Iterable[Measurement]) -> dict[Any, dict[str, float]]:
    """Return by configuration and stage how far apart the medians of its rounds lie."""
    medians: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for stage, data in record.stages.items():
            if data.median_s is not None:
                medians[record.configuration][stage].append(data.median_s)
    return {
        configuration: {
            stage: max(values) - min(values) for stage, values in stages.items() if len(values) > 1
        }
        for configuration, stages in medians.items()
    }


def _software(records: Sequence[Measurement]) -> dict[str, str]:
    """Return each program's versions; several are joined by a comma."""
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name in ("python", "torch", "transformers", "cuda", "driver", "threads"):
            value = record.environment.get(name)
            if value is not None:
                found[name].add(str(value))
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def calibration_words(calibration: Calibration) -> str:
    """Return a calibration's name, software and date, as far as it knows them."""
    about = ", ".join(part for part in (calibration.software, calibration.date) if part)
    return f"{calibration.name}: {about}" if about else str(calibration.name)


def _notes(calibration: Calibration | None, predictions: Iterable[Prediction]) -> list[str]:
    if calibration is None:
        return [
            "no calibration: predictions are the ideal roofline; efficiency and host cost are in the "
            "unexplained part"
        ]
    times: dict[tuple[str, str], float] = defaultdict(float)
    for prediction in predictions:
        for stage in prediction.stages:
            ops, roofline = prediction.ops(stage)
            # What a link takes is no part of a device's calibration.
            for op in apart(ops)[0]:
                spent = float(roofline.op_times(op, max)[0]) * float(op.count)
                times[(op.op_class, op.dtype)] += spent
    whole = sum(times.values()) or 1.0
    assumed = [
        f"{op_class} in {dtype} {time / whole:.1%}"
        for (op_class, dtype), time in sorted(times.items(), key=lambda item: -item[1])
        if time > 0 and not calibration.lookup(op_class, dtype).measured
    ]
    what = "assumed, not measured, by share of the predicted device time: "
    return [what + ", ".join(assumed)] if assumed else []
