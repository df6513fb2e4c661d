"""`Calibration`: the efficiencies that one device and its software reach, and the predicted times."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.classes import PARENTS, kind_of_class, peak_of
from costmodel.calibration.device import device_of
from costmodel.calibration.dtypes import LABELS, SIBLINGS, canonical, stand_in
from costmodel.calibration.file import (
    DATA,
    document_of,
    find_calibration,
    list_calibrations,
    read_fields,
    write_document,
)
from costmodel.calibration.host import own_host_fields
from costmodel.calibration.pricing import Pricer
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from costmodel.calibration.parameters import ClassParameters, Device, Parameter
    from hardware_specs import HardwareSpec

#: The arguments that an op of each kind needs, and the one that may be left out.
_ARGUMENTS = {
    "gemm": (("m", "n", "k"), "batch"),
    "attention": (("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim"), "causal"),
    "stream": (("bytes",), "flops"),
}
_NUMBERS = (int, float, np.integer, np.floating)


@dataclass(frozen=True)
class Calibration:
    """What a device really reaches, per op class and dtype.

    Attributes:
        hardware_id: the device's id; empty for parameters that belong to no device yet.
        device_name: the name its driver prints.
        software: what ran the measurements.
        date: when they were made or published, ISO 8601; empty if not known.
        device: the datasheet numbers that the efficiencies refer to; None before `for_hardware`.
        classes: parameters by (op class, dtype).
        host_s_per_kernel: seconds the host needs to launch one kernel.
        host_sync_s: seconds one stage waits for the host besides its launches.
        l2_bandwidth_ratio: L2 bandwidth over the datasheet's memory bandwidth.
        attribution: whose measurements these are, and under which licence.
        intervals: the intervals of the three numbers above, by attribute name.
        notes: provenance of the numbers outside `classes`, by attribute name.
        warnings: what a reader must know, such as classes that could not be fitted.
        kind: `shipped`, `generic` (assumed parameters of no device in particular) or `file`.
    """

    hardware_id: str
    device_name: str
    software: str
    date: str
    device: Device | None
    classes: Mapping[tuple[str, str], ClassParameters]
    host_s_per_kernel: float
    host_sync_s: float
    l2_bandwidth_ratio: float
    attribution: str = ""
    intervals: Mapping[str, Parameter] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    kind: str = field(default="file", compare=False)
    # Filled on use: the parameters that answer for a class and dtype, and what prices it.
    _pricers: dict[tuple[str, str, bool], Pricer] = field(
        init=False, compare=False, repr=False, default_factory=dict, hash=False
    )
    # Bound to a device once: what it has worked out serves every caller.
    _bound: dict[str, tuple[HardwareSpec, Calibration]] = field(
        init=False, compare=False, repr=False, default_factory=dict, hash=False
    )

    def __repr__(self) -> str:
        """Name the device and what was measured of it; all parameters would fill a page."""
        source = f", {self.software}" if self.software else ""
        return f"<Calibration {self.name}: {len(self.classes)} op classes{source}, {self.date or 'undated'}>"

    def _repr_html_(self) -> str:
        from costmodel.written_tables import WrittenTable

        rows = tuple(
            (op_class, dtype, self.provenance(op_class, dtype)) for op_class, dtype in self.classes
        )
        return WrittenTable(repr(self)[1:-1], ("op class", "dtype", "how it is known"), rows).html()

    @classmethod
    def load(cls, source: str | Path, hardware: HardwareSpec | None = None) -> Calibration:
        """Return a shipped calibration by name, or the one in a file.

        Args:
            source: a name of `list_calibrations()` or the path of a JSON file.
            hardware: bind the parameters to this device; needed for `generic`.

        Raises:
            CalibrationError: no such name or file, or it belongs to another device.
            InvalidFileError: the file does not hold a calibration.

        >>> Calibration.load("nvidia-a100-sxm4-80gb").hardware_id
        'nvidia-a100-sxm4-80gb'
        """
        path = find_calibration(source)
        found = _shipped(path) if path.parent == DATA else cls(**read_fields(path), kind="file")
        return found if hardware is None else found.for_hardware(hardware)

    def save(self, path: str | Path) -> None:
        """Write the JSON file atomically: a reader sees the old file or the new one, never a half.

        Raises:
            OutputError: the file cannot be written.
        """
        write_document(self.to_dict(), path)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document that `save` writes.

        >>> Calibration.load("generic").to_dict()["schema_version"]
        1
        """
        return document_of({each.name: getattr(self, each.name) for each in fields(self)})

    @property
    def name(self) -> str:
        """The device's id, or `generic` for assumed parameters, whatever device they are bound to."""
        return "generic" if self.kind == "generic" else self.hardware_id or "generic"

    def check_hardware(self, hardware: HardwareSpec) -> None:
        """Refuse a device that the calibration was not measured on.

        Raises:
            CalibrationError: the calibration was measured on another device.
        """
        if self.device is not None and self.hardware_id != hardware.id:
            raise CalibrationError(
                f"the calibration is of {self.hardware_id!r}, not of {hardware.id!r}; load "
                f"that device's, or 'generic' for assumed parameters"
            )

    def for_hardware(self, hardware: HardwareSpec) -> Calibration:
        """Return this calibration after checking that it belongs to a device, or bind it to the device.

        Raises:
            CalibrationError: the calibration was measured on another device.
        """
        self.check_hardware(hardware)
        if self.device is not None:
            return self
        known, bound = self._bound.get(hardware.id, (None, None))
        if bound is not None and known is hardware:
            return bound
        device = device_of(hardware)
        bound = replace(
            self,
            hardware_id=hardware.id,
            device_name=hardware.device_names[0] if hardware.device_names else hardware.name,
            device=device,
            # An arithmetic the device does not have cannot be priced on it.
            classes={
                key: found
                for key, found in self.classes.items()
                if kind_of_class(key[0]) == "stream" or peak_of(device, key[1]) is not None
            },
            **own_host_fields(hardware),
        )
        self._bound[hardware.id] = hardware, bound
        return bound

    def holds(self, op_class: str, dtype: str) -> bool:
        """Return whether the calibration can price an op class in a dtype."""
        try:
            self.lookup(op_class, dtype)
        except CalibrationError:
            return False
        return True

    def lookup(self, op_class: str, dtype: str) -> ClassParameters:
        """Return the parameters of an op class in a dtype.

        What is measured answers before what is assumed: bf16 and fp16 for each other, since what share
        of a peak their kernels reach is alike (the peak is that of the dtype asked for), any dtype of
        kernels that only stream bytes, whose bytes are given, and then a class of which this one is
        a part. A format without a class of its own takes the one with the most alike kernels, its own
        stored bytes and twice the uncertainty. An answer from elsewhere says `transferred`.

        Raises:
            CalibrationError: neither is there; names what is.
        """
        label = canonical(dtype)
        labels: tuple[str, ...] = (label, SIBLINGS.get(label, label))
        if kind_of_class(op_class) == "stream":
            labels = (*labels, "bf16", *LABELS)
        for name in dict.fromkeys((op_class, PARENTS.get(op_class, op_class))):
            held = [
                found for each in labels if (found := self.classes.get((name, each))) is not None
            ]
            measured = next((found for found in held if found.measured), None)
            if measured is not None and (name, measured.dtype) != (op_class, label):
                return measured.transferred(f"{name} in {measured.dtype}")
            if held:
                return measured or held[0]
        like = stand_in(label)
        if like is not None and self.holds(op_class, like):
            found = self.lookup(op_class, like)
            moved = found.transferred(f"{found.dtype}, with the bytes of {label}")
            return replace(moved.doubted(), dtype=label)
        others = sorted({f"{c} in {d}" for c, d in self.classes if c == op_class})
        what = ", ".join(others) or f"the classes {', '.join(sorted({c for c, _ in self.classes}))}"
        raise CalibrationError(
            f"the calibration of {self.hardware_id or 'no device'} does not hold {op_class!r} in "
            f"{label!r}; it holds {what}"
        )

    def op_interval(
        self, op_class: str, dtype: str, level: float = 0.9, rows: Any = None
    ) -> tuple[Any, Any]:
        """Return the ratios that multiply a predicted time to its interval's ends.

        Args:
            op_class: one of `OP_CLASSES`.
            dtype: a dtype label.
            level: probability that a measurement lies inside.
            rows: of products, a number or an array; those of few err more. None is 1,024 and more.

        >>> low, high = Calibration.load("nvidia-a100-sxm4-80gb").op_interval("gemm", "bf16")
        >>> low < 1 < high
        True
        """
        return self.lookup(op_class, dtype).interval(level, rows)

    def provenance(self, op_class: str, dtype: str) -> str:
        """Return where the parameters of an op class in a dtype come from, in one sentence."""
        return self.lookup(op_class, dtype).provenance

    def op_time_s(self, op_class: str, *, dtype: str, **sizes: Any) -> Any:
        """Return the predicted seconds of one execution: numbers in, a number out; arrays alike.

        Args:
            op_class: `gemm` and `conv` take m, n, k and batch; `attention_prefill`,
                `attention_encoder` and `attention_decode` take batch, q_len, kv_len, heads,
                kv_heads, head_dim and causal; the others take bytes and flops.
            dtype: a dtype label.
            sizes: those numbers, or arrays that broadcast together.

        Raises:
            CalibrationError: the class or dtype is not held, or a size is missing or unknown.

        >>> a100 = Calibration.load("nvidia-a100-sxm4-80gb")
        >>> t = a100.op_time_s("gemm", dtype="bf16", m=[576, 64], n=4096, k=4096)
        >>> bool(t[0] > t[1])
        True
        """
        needed, optional = _ARGUMENTS[kind_of_class(op_class)]
        pricer = self.pricer(op_class, dtype, alone=True)
        missing = [name for name in needed if name not in sizes]
        if missing:
            raise CalibrationError(f"{op_class!r} also needs {', '.join(missing)}")
        extra = sizes.keys() - {*needed, optional}
        if extra:
            raise CalibrationError(
                f"{op_class!r} takes {', '.join(needed)}, not {', '.join(sorted(extra))}"
            )
        if all(isinstance(value, _NUMBERS) for value in sizes.values()):
            return float(pricer.time_s(**sizes))
        return pricer.time_s(**{name: np.asarray(value) for name, value in sizes.items()})

    def pricer(self, op_class: str, dtype: str, *, alone: bool = False) -> Pricer:
        """Return what prices an op class in a dtype, worked out once.

        Raises:
            CalibrationError: the class or dtype is not held, or the device lacks the arithmetic.
        """
        found = self._pricers.get((op_class, dtype, alone))
        if found is None:
            held = self.lookup(op_class, dtype)
            found = Pricer(op_class, dtype, held, self._device(), alone)
            self._pricers[op_class, dtype, alone] = found
        return found

    def _device(self) -> Device:
        if self.device is None:
            raise CalibrationError(
                "these parameters belong to no device yet; bind them with "
                "Calibration.load('generic', hardware=get_hardware(ID))"
            )
        return self.device


def best_calibration(
    hardware: HardwareSpec, needed: Iterable[tuple[str, str]] = ()
) -> Calibration | None:
    """Return the shipped calibration of a device, else `generic` bound to it.

    Args:
        hardware: the device.
        needed: (op class, dtype) pairs that it must price.

    Returns:
        The calibration; None where even the generic law lacks one of the pairs, so that only the
        ideal roofline is left.

    >>> from hardware_specs import get_hardware
    >>> best_calibration(get_hardware("nvidia-l40s")).name
    'generic'
    """
    names = (hardware.id, "generic") if hardware.id in list_calibrations() else ("generic",)
    for name in names:
        found = Calibration.load(name, hardware)
        if all(found.holds(op_class, dtype) for op_class, dtype in needed):
            return found
    return None


@lru_cache(maxsize=32)
def _shipped(path: Path) -> Calibration:
    """Read a shipped calibration once: the times that it remembers serve every caller."""
    kind = "generic" if path.stem == "generic" else "shipped"
    return Calibration(**read_fields(path), kind=kind)
