"""What predicted times rest on: which law, and how much of the time on what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hardware_specs.showing import brief

if TYPE_CHECKING:
    from costmodel.calibration import Calibration
    from costmodel.uncertainty import Errors

#: Classes that a sentence names.
MOST_NAMED, LEAST_NAMED = 3, 0.01


@dataclass(frozen=True)
class TimeSource:
    """What the times of an answer rest on.

    Attributes:
        name: the calibration's name; `generic` for assumed parameters, `none` for the ideal roofline.
        kind: `shipped`, `generic`, `file` or `none`.
        measured: share of the predicted time whose parameters were measured on the device.
        transferred: share whose parameters were measured in another dtype, class or device.
        assumed: share whose parameters nobody measured. All three are None for the ideal roofline.
        missing: the classes that hold most of what was not measured, with their shares.
    """

    name: str
    kind: str
    measured: float | None = None
    transferred: float | None = None
    assumed: float | None = None
    missing: tuple[tuple[str, float], ...] = ()

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """Return the block of the JSON document."""
        found = asdict(self)
        del found["missing"]
        return found

    def sentence(self) -> str:
        """Say it in one line for people, with what would improve it.

        >>> TimeSource("none", "none").sentence()
        'time: the ideal roofline, a lower bound; --calibration auto predicts times'
        """
        if self.kind == "none":
            return "time: the ideal roofline, a lower bound; --calibration auto predicts times"
        law = {
            "shipped": f"the shipped calibration of {self.name}",
            "generic": "the generic law, no calibration of this device",
            "file": f"the calibration of {self.name} from a file",
        }[self.kind]
        shares = ", ".join(
            f"{share:.0%} {name}"
            for name in ("measured", "transferred", "assumed")
            if (share := getattr(self, name))
        )
        line = f"time: {law}; of it rest on parameters: {shares or 'nothing runs'}"
        if not self.missing:
            return line
        names = ", ".join(f"{name} {share:.0%}" for name, share in self.missing)
        if any(name == "host" for name, _ in self.missing):
            return f"{line}; --host-us and `vlm-roofline calibrate` replace them (most: {names})"
        return f"{line}; `vlm-roofline calibrate` on the device measures them (most: {names})"


#: What the ideal roofline's times rest on.
IDEAL = TimeSource("none", "none")


def source_of(calibration: Calibration | None, errors: Errors | None) -> TimeSource:
    """Return what times rest on.

    Args:
        calibration: the calibration; None is the ideal roofline.
        errors: the uncertainty of the whole time, which knows the classes.
    """
    if calibration is None or errors is None:
        return IDEAL
    times = {key: float(part.time_s) for key, part in errors.parts.items()}
    whole = sum(times.values()) or 1.0
    missing: dict[str, float] = {}
    for (op_class, dtype, standing), time in times.items():
        if standing != "measured" and time:
            label = f"{op_class} in {dtype}" if dtype else op_class
            missing[label] = missing.get(label, 0.0) + time / whole
    most = sorted(missing.items(), key=lambda item: -item[1])[:MOST_NAMED]
    most = [(name, share) for name, share in most if share >= LEAST_NAMED]
    return TimeSource(
        str(calibration.name),
        calibration.kind,
        **{name: float(share) for name, share in errors.shares().items()},
        missing=tuple(most),
    )
