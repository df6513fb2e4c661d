"""`Calibration`: the efficiencies that one device and its software reach, and the predicted times."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.calibration.attention import attention_time_s
from costmodel.calibration.classes import PARENTS, kind_of_class, peak_of
from costmodel.calibration.curves import corrected, knots
from costmodel.calibration.device import device_of
from costmodel.calibration.dtypes import LABELS, SIBLINGS, canonical, stand_in
from costmodel.calibration.file import (
    DATA,
    document_of,
    find_calibration,
    read_fields,
    write_document,
)
from costmodel.calibration.gemm import gemm_time_s
from costmodel.calibration.gemm_scalar import gemm_scalar_s
from costmodel.calibration.law import stream_time_s
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from costmodel.calibration.parameters import ClassParameters, Device, Parameter
    from hardware_specs import HardwareSpec

_ARGUMENTS = {
    "gemm": ("m", "n", "k"),
    "conv": ("m", "n", "k"),
    "attention_prefill": ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim"),
    "attention_encoder": ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim"),
    "attention_decode": ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim"),
}
#: The argument that may be left out, by the first word of an op class; the others may leave `flops`.
_OPTIONAL = {"gemm": "batch", "conv": "batch", "attention": "causal"}
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
    # Memories, filled on use: times of single ops, and curves with their abscissae.
    _scalars: dict[Any, float] = field(
        init=False, compare=False, repr=False, default_factory=dict, hash=False
    )
    _curves: dict[Any, Any] = field(
        init=False, compare=False, repr=False, default_factory=dict, hash=False
    )

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
        found = _shipped(path) if path.parent == DATA else cls(**read_fields(path))
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
        """The device's id, or `generic` for parameters that belong to no device yet."""
        return self.hardware_id or "generic"

    def check_hardware(self, hardware: HardwareSpec) -> None:
        """Refuse a device that the calibration was not measured on.

        Args:
            hardware: the device that predictions are wanted for.

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

        Args:
            hardware: the device that predictions are wanted for.

        Raises:
            CalibrationError: the calibration was measured on another device.
        """
        self.check_hardware(hardware)
        if self.device is not None:
            return self
        device = device_of(hardware)
        return replace(
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
        )

    def holds(self, op_class: str, dtype: str) -> bool:
        """Return whether the calibration can price an op class in a dtype."""
        try:
            self.lookup(op_class, dtype)
        except CalibrationError:
            return False
        return True

    def lookup(self, op_class: str, dtype: str) -> ClassParameters:
        """Return the parameters of an op class in a dtype.

        bf16 and fp16 answer for each other: what share of a peak their kernels reach is alike, and
        the peak is that of the dtype asked for. For kernels that only stream bytes any dtype answers:
        their bytes are given. A format without a class of its own takes the one with the most alike
        kernels, its own stored bytes and twice the uncertainty, and says `transferred`.

        Raises:
            CalibrationError: neither is there; names what is.
        """
        label = canonical(dtype)
        labels: tuple[str, ...] = (label, SIBLINGS.get(label, label))
        if op_class not in _ARGUMENTS:
            labels = (*labels, "bf16", *LABELS)
        for name in (op_class, PARENTS.get(op_class, op_class)):
            for each in labels:
                found = self.classes.get((name, each))
                if found is not None:
                    return found
        like = stand_in(label)
        if like is not None and self.holds(op_class, like):
            return self._transferred(self.lookup(op_class, like), label)
        held = sorted({f"{c} in {d}" for c, d in self.classes if c == op_class})
        what = ", ".join(held) or f"the classes {', '.join(sorted({c for c, _ in self.classes}))}"
        raise CalibrationError(
            f"the calibration of {self.hardware_id or 'no device'} does not hold {op_class!r} in "
            f"{label!r}; it holds {what}"
        )

    def _transferred(self, found: ClassParameters, label: str) -> ClassParameters:
        """Return a class's parameters for a format with other bytes, twice as uncertain."""
        key = ("transferred", found.op_class, label)
        known: ClassParameters | None = self._curves.get(key)
        if known is None:
            known = self._curves[key] = replace(
                found,
                dtype=label,
                provenance=f"transferred from {found.dtype}, with the bytes of {label}; "
                f"{found.dtype} is {found.provenance}",
                points=0,
                quantiles=tuple((level, 2 * ratio) for level, ratio in found.quantiles),
                held_out=None,
            )
        return known

    def op_interval(self, op_class: str, dtype: str, level: float = 0.9) -> tuple[float, float]:
        """Return the ratios that multiply a predicted time to its interval's ends.

        Args:
            op_class: one of `OP_CLASSES`.
            dtype: a dtype label.
            level: probability that a measurement lies inside.

        >>> low, high = Calibration.load("nvidia-a100-sxm4-80gb").op_interval("gemm", "bf16")
        >>> low < 1 < high
        True
        """
        return self.lookup(op_class, dtype).interval(level)

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
        key = None
        if not any(isinstance(value, (np.ndarray, list, tuple)) for value in sizes.values()):
            # An estimate asks for a few dozen single ops, the same ones again and again.
            key = (op_class, dtype, tuple(sizes.items()))
            found = self._scalars.get(key)
            if found is not None:
                return found
        time = self._evaluate(op_class, dtype, sizes)
        if key is not None:
            if len(self._scalars) > 4096:
                self._scalars.clear()
            self._scalars[key] = time = float(time)
        return time

    def _evaluate(self, op_class: str, dtype: str, sizes: dict[str, Any]) -> Any:
        found = self.lookup(op_class, dtype)
        device = self._device()
        needed = _ARGUMENTS.get(op_class, ("bytes",))
        missing = [name for name in needed if name not in sizes]
        if missing:
            raise CalibrationError(f"{op_class!r} also needs {', '.join(missing)}")
        extra = sizes.keys() - {*needed, _OPTIONAL.get(op_class.partition("_")[0], "flops")}
        if extra:
            raise CalibrationError(
                f"{op_class!r} takes {', '.join(needed)}, not {', '.join(sorted(extra))}"
            )
        if op_class in ("gemm", "conv"):
            return self._gemm(found, device, self._peak(canonical(dtype), device), **sizes)
        if op_class in _ARGUMENTS:
            peak = self._peak(canonical(dtype), device)
            label = LABELS[found.dtype]
            sizes = {k: np.asarray(v) for k, v in sizes.items()}
            sizes.setdefault("causal", np.asarray(op_class == "attention_prefill"))
            family = found.kernels or "split-keys"
            element = label.output_bytes
            return attention_time_s(found.values, device, family, element, peak, **sizes)
        flops = np.asarray(sizes.get("flops", 0.0))
        return stream_time_s(found.values, device, np.asarray(sizes["bytes"]), flops)

    def _gemm(
        self,
        found: ClassParameters,
        device: Device,
        peak: float,
        m: Any,
        n: Any,
        k: Any,
        batch: Any = 1,
    ) -> Any:
        family = found.kernels or "library"
        law = (found.values, device, family, found.dtype, peak)
        # Curves are ratios to the law at the peak of the dtype that they were measured in.
        curves = self._knots(found, device, family)
        if all(isinstance(size, _NUMBERS) for size in (m, n, k, batch)):
            one = gemm_scalar_s(*law, float(m), float(n), float(k), float(batch))
            if one > 0 and batch == 1 and (n, k) in curves:
                one = float(corrected(one, *curves[n, k]))
            return one
        sizes = (np.asarray(size, dtype=float) for size in (m, n, k, batch))
        m, n, k, batch = np.broadcast_arrays(*sizes)
        shape = m.shape
        m, n, k, batch = m.ravel(), n.ravel(), k.ravel(), batch.ravel()
        time = gemm_time_s(*law, m, n, k, batch)
        for (width, depth), (x, y) in curves.items():
            mask = (n == width) & (k == depth) & (batch == 1) & (m > 0)
            if mask.any():
                time[mask] = corrected(time[mask], x, y)
        return time.reshape(shape)

    def _knots(
        self, found: ClassParameters, device: Device, family: str
    ) -> dict[tuple[float, float], tuple[np.ndarray, np.ndarray]]:
        """Return every curve's abscissae and ratios by (n, k), computed once per class."""
        key = (found.op_class, found.dtype)
        ready = self._curves.get(key)
        if ready is None:
            peak = self._peak(found.dtype, device)
            ready = self._curves[key] = {}
            for curve in found.shapes:
                rows = np.array(curve.rows)
                full = np.ones(len(rows))
                width, depth = full * curve.n, full * curve.k
                law = gemm_time_s(
                    found.values, device, family, found.dtype, peak, rows, width, depth, full
                )
                ready[float(curve.n), float(curve.k)] = knots(curve, law)
        return ready

    def _device(self) -> Device:
        if self.device is None:
            raise CalibrationError(
                "these parameters belong to no device yet; bind them with "
                "Calibration.load('generic', hardware=get_hardware(ID))"
            )
        return self.device

    def _peak(self, dtype: str, device: Device) -> float:
        for name in LABELS[dtype].arithmetic:
            if name in device.peaks:
                return device.peaks[name]
        raise CalibrationError(
            f"{self.hardware_id} has no {' or '.join(LABELS[dtype].arithmetic)} peak, so {dtype!r} "
            f"cannot be priced; it has {', '.join(device.peaks)}"
        )


@lru_cache(maxsize=32)
def _shipped(path: Path) -> Calibration:
    """Read a shipped calibration once: the times that it remembers serve every caller."""
    return Calibration(**read_fields(path))
