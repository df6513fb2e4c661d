"""The one error tree of the project.

    VlmRooflineError
    ├── InvalidInputError (ValueError)      a value out of its range, or arguments that exclude each other
    ├── InvalidFileError (ValueError)       a spec, config, calibration or measurement file that does not hold
    ├── UnknownNameError (LookupError)      a name that is not in its registry; carries near matches
    │   ├── UnknownHardwareError
    │   ├── UnknownModelError
    │   ├── UnknownMethodError
    │   ├── UnknownPrecisionError
    │   └── UnknownConventionError
    ├── UnsupportedError                    known, but not possible in this combination
    │   └── MissingPeakError                the device has no such arithmetic path
    ├── CalibrationError                    data that a calibration cannot be fitted from or applied to
    ├── MissingDependencyError (ImportError)  an optional package is not installed
    ├── DeviceUnavailableError              no such device on this machine
    ├── RankError                           one of several processes that share a model failed
    └── OutputError (OSError)               a result that could not be written

Every message says what was given, what there is, and what to do. The command line turns any of
these into one line on stderr and exit code 2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hardware_specs.showing import SHOWN_CHARACTERS, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


#: A registry of up to this many names is listed whole in the message beside near matches, or a hint.
LISTED_AT_MOST = 24
#: Longest message of an error.
MOST_CHARACTERS = 2000


class VlmRooflineError(Exception):
    """Base of every error this project raises on purpose.

    >>> len(str(VlmRooflineError("x" * 100_000)))
    2000
    """

    def __str__(self) -> str:
        """Return the message, bounded: a file's text or a caller's list may stand inside it."""
        text = super().__str__()
        return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


class InvalidInputError(VlmRooflineError, ValueError):
    """A value is out of its range, or two arguments exclude each other.

    Attributes:
        rows: of many scenarios at once, which are refused: an array of booleans; None where that is not
            known.
    """

    rows: Any = None


def check_kind(name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise unless an argument is of a kind.

    >>> check_kind("plan", 5, str, "a name")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: plan must be a name, not 5
    """
    if not isinstance(value, kinds):
        raise InvalidInputError(f"{name} must be {wanted}, not {shown(value)}")


def check_list(name: str, value: object, wanted: str) -> None:
    """Raise unless an argument is a list, or can be gone through again and again as one.

    A text cannot, whose letters are none of its parts, nor can an iterator, which is empty the second time.

    >>> check_list("models", "llava-1.5-7b", "a list of models")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: models must be a list of models, not 'llava-1.5-7b'
    """
    once = isinstance(value, (str, bytes)) or hasattr(value, "__next__")
    if once or not hasattr(value, "__iter__"):
        raise InvalidInputError(f"{name} must be {wanted}, not {shown(value)}")


class InvalidFileError(VlmRooflineError, ValueError):
    """A file was read but does not hold what it must."""


class UnknownNameError(VlmRooflineError, LookupError):
    """A name is not in its registry.

    Args:
        given: the name that was asked for.
        known: the names there are.
        kind: what they name, when the class does not say.
        aliases: other names that people use, with the name each stands for.

    >>> str(UnknownNameError("falcon", ["llava-1.5-7b"]))
    "unknown name 'falcon'; there is: llava-1.5-7b"
    >>> UnknownHardwareError("nvidia-a100", ["google-tpu-v5e", "nvidia-a100-sxm4-80gb"]).near_matches
    ('nvidia-a100-sxm4-80gb',)
    >>> UnknownModelError("gpt_4", ["gemma"], aliases={"gpt-v4-turbo": "gemma"}).near_matches
    ('gemma',)
    """

    kind = "name"
    hint = ""

    def __init__(
        self,
        given: object,
        known: Iterable[str],
        kind: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the name, the known names and the near matches; build the message."""
        self.kind = kind or self.kind
        self.given = given
        self.known = tuple(known)
        lowered = {name.lower(): name for name in self.known}
        lowered |= {alias.lower(): name for alias, name in (aliases or {}).items()}
        text = given.lower()[:SHOWN_CHARACTERS] if isinstance(given, str) else shown(given)
        # A name typed in part is the commonest slip, so what contains it comes first.
        part = _letters(text)
        near = [name for name in lowered if part and part in _letters(name)]
        from difflib import get_close_matches

        near += get_close_matches(text, lowered, n=4, cutoff=0.6)
        self.near_matches = tuple(dict.fromkeys(lowered[name] for name in near))[:4]
        message = f"unknown {self.kind} {shown(given)}"
        if self.near_matches:
            message += f"; did you mean {' or '.join(self.near_matches)}?"
        if len(self.known) <= LISTED_AT_MOST:
            message += " There is: " if self.near_matches else "; there is: "
            message += ", ".join(self.known)
        elif self.hint:
            message += " " if self.near_matches else "; "
            message += f"{self.hint} names all {len(self.known)}"
        elif not self.near_matches:
            message += f"; there is: {', '.join(self.known)}"
        super().__init__(message)


def _letters(name: str) -> str:
    """Return a name without what people leave out: `llava16` of `llava-v1.6`."""
    return re.sub(r"[-_. ]|\bv(?=\d)", "", name)


class UnknownHardwareError(UnknownNameError):
    """No such device id."""

    kind = "hardware"
    hint = "`vlm-roofline specs list`"


class UnknownModelError(UnknownNameError):
    """No such model name, file or hub id."""

    kind = "model"
    hint = "`vlm-roofline models list`"


class UnknownMethodError(UnknownNameError):
    """No such token-reduction method."""

    kind = "method"
    hint = "`vlm-roofline methods list`"


class UnknownPrecisionError(UnknownNameError):
    """No such precision name."""

    kind = "precision"
    hint = "docs/cost-model.md, section Precision,"


class UnknownConventionError(UnknownNameError):
    """No such counting convention."""

    kind = "convention"


class UnsupportedError(VlmRooflineError):
    """Both sides are known, but they do not go together."""


class MissingPeakError(UnsupportedError):
    """The device has no such arithmetic path, or its peak is not published."""


class CalibrationError(VlmRooflineError, ValueError):
    """Data that a calibration cannot be fitted from, or a calibration that does not apply.

    Attributes:
        measured: the table of ops whose fit was refused right after they were measured, and the device's
            spec, so that a caller can keep both; None where nothing was measured.
    """

    measured: Any = None


class MissingDependencyError(VlmRooflineError, ImportError):
    """An optional package is not installed.

    >>> str(MissingDependencyError("torch", "profile"))
    "this needs the package 'torch', which is not installed; run: pip install 'vlm-roofline[profile]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        """Name the package and the extra that brings it."""
        self.package = package
        super().__init__(
            f"this needs the package {package!r}, which is not installed; "
            f"run: pip install 'vlm-roofline[{extra}]'"
        )


class DeviceUnavailableError(VlmRooflineError, RuntimeError):
    """The machine has no such device."""


class RankError(VlmRooflineError):
    """One of several processes that share a model failed, which ends the run of all.

    Args:
        message: the reason, the same for all processes.
        speaks: whether this process is the one to say it.
    """

    def __init__(self, message: str, *, speaks: bool = True) -> None:
        """Keep whether this process speaks."""
        super().__init__(message)
        self.speaks = speaks


class OutputError(VlmRooflineError, OSError):
    """A result could not be written: a read-only folder, a full disk."""
