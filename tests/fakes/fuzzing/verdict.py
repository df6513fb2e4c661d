"""What an outcome is: ok, refused, or a failure with its cause."""

from __future__ import annotations

import math
import resource
import signal
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware_specs.errors import VlmRooflineError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
#: Of the processor; other programs may hold a case up by three times as much.
MOST_SECONDS = 20
MOST_CHARACTERS = 2000
MOST_BYTES = 2 << 30
#: Quantities that no run can have less than nothing of, by the ends of their names.
_COUNTED = ("flops", "_bytes", "kernels", "time_s", "time_low_s", "time_high_s", "ttft_s", "tpot_s",
            "hbm_bytes", "tokens", "bytes_written")  # fmt: skip


class Wrong(Exception):
    """An answer that cannot be."""


class Hang(BaseException):
    """A case took longer than `MOST_SECONDS`."""


@dataclass(frozen=True)
class Outcome:
    """`ok`, `refused`, or `failed` with a cause that names the kind and the place."""

    kind: str
    cause: str = ""
    text: str = ""


def judged(run: Callable[[], Any]) -> Outcome:
    """Run one case and judge what came of it."""
    before = _peak_bytes()
    started = time.process_time()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(3 * MOST_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # numpy's way of saying NaN
            answer = run()
        check_sane(answer)
        outcome = Outcome("ok")
    except VlmRooflineError as error:
        text = str(error)
        if len(text) > MOST_CHARACTERS:
            outcome = Outcome("failed", f"a message of over 2 kB by {place(error)}", text[:300])
        else:
            outcome = Outcome("refused")
    except Hang as error:
        outcome = Outcome("failed", f"Hang in {place(error)}")
    except Exception as error:
        outcome = Outcome("failed", f"{type(error).__name__} in {place(error)}", _said(error))
    finally:
        signal.alarm(0)
    if time.process_time() - started > MOST_SECONDS:
        return Outcome("failed", "Hang")
    if _peak_bytes() - before > MOST_BYTES:
        return Outcome("failed", f"over 2 GB ({outcome.cause or outcome.kind})")
    return outcome


def _too_long(*_: object) -> None:
    raise Hang


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _said(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())[:300]
    except Exception:
        return "(its text raises)"


def place(error: BaseException) -> str:
    """The innermost function of the project that an exception passed: `folder/file.py:function`."""
    frames = traceback.extract_tb(error.__traceback__)
    packages = ("hardware_specs", "costmodel", "token_reduction", "profiling", "vlm_roofline")
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in packages:
            return f"{path.relative_to(ROOT).as_posix()}:{frame.name}"
    return "outside"


def check_sane(answer: Any, name: str = "answer") -> None:
    """Raise `Wrong` on NaN, infinity, or less than nothing of a count, anywhere inside."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            check_sane(value, str(key))
    elif isinstance(answer, (list, tuple)):
        for value in answer:
            check_sane(value, name)
    elif isinstance(answer, np.ndarray) and answer.dtype.kind == "f":
        if not np.isfinite(answer).all():
            raise Wrong(f"{name} holds NaN or infinity")
        if name.endswith(_COUNTED) and (answer < 0).any():
            raise Wrong(f"{name} is negative")
    elif isinstance(answer, (int, float, np.number)) and not isinstance(answer, bool):
        try:
            finite = math.isfinite(answer)
        except OverflowError:
            finite = True  # an exact integer beyond what a float holds
        if not finite:
            raise Wrong(f"{name} is {answer}")
        if name.endswith(_COUNTED) and answer < 0:
            raise Wrong(f"{name} is negative")
