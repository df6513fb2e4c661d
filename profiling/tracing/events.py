"""The events of a Chrome trace that matter: device work, launches, ops and named ranges.

A trace is anybody's file. An event that lacks what it needs (a number for its beginning and its length)
is counted and left out; an id that is no id links to nothing; what a profiler records besides (Python
frames, counters, arrows) is passed over while the file is read, so that it never fills the memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import show_path
from hardware_specs.files.streaming import stream_members

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Category -> kind of event; older releases of torch wrote some with another name.
_KINDS = {
    "kernel": "kernel",
    "gpu_memcpy": "copy",
    "memcpy": "copy",
    "gpu_memset": "copy",
    "memset": "copy",
    "cpu_op": "op",
    "operator": "op",
    "user_annotation": "range",
    "cuda_runtime": "launch",
    "cuda_driver": "launch",
    "hip_runtime": "launch",
    "hip_driver": "launch",
    "runtime": "launch",
}
DEVICE_KINDS = ("kernel", "copy")
#: More time than any run takes, in microseconds: 30 years.
_MOST_US = 1e15
#: Templates make names of kernels thousands of characters long.
_LONGEST_NAME = 4000


class Event(NamedTuple):
    """One event; times in microseconds, as the file has them, so that nested ends stay equal.

    Attributes:
        kind: `kernel`, `copy` (memory copied or set), `launch`, `op` or `range`.
        name: as recorded.
        begin_us: when it began, on the trace's clock.
        length_us: how long it took.
        thread: process and thread of the host.
        correlation: links a launch with its device work; None for none.
        external: links device work with its op; None for none.
        place: device and stream.
        sizes: an op's input sizes, empty where they were not recorded.
        types: its input types.
        values: the inputs that are plain values, as text.
    """

    kind: str
    name: str
    begin_us: float
    length_us: float
    thread: str = ""
    correlation: int | str | None = None
    external: int | str | None = None
    place: tuple[str, str] = ("", "")
    sizes: tuple[Any, ...] = ()
    types: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def end_us(self) -> float:
        """When it ended."""
        return self.begin_us + self.length_us


@dataclass
class Trace:
    """What a trace holds.

    Attributes:
        device: kernels and copies, in the file's order.
        host: launches, ops and ranges, by thread.
        device_names: of the devices, as the driver prints them.
        damaged: events left out, since they had no usable time.
    """

    device: list[Event] = field(default_factory=list)
    host: dict[str, list[Event]] = field(default_factory=dict)
    device_names: tuple[str, ...] = ()
    damaged: int = 0

    @property
    def on_cpu(self) -> bool:
        """Whether no device work was recorded: then the outermost ops are the work."""
        return not self.device


def read_events(path: str | Path) -> Trace:
    """Return the events of a `.json` or `.json.gz` trace.

    Raises:
        InvalidFileError: not such a trace, or nothing in it can be used.
    """
    trace = Trace()
    names: list[str] = []

    def events() -> Iterable[Any]:
        for name, value in stream_members(path, "trace", "traceEvents"):
            if name == "traceEvents":
                yield value
            elif name == "deviceProperties" and isinstance(value, list):
                names.extend(
                    str(each["name"])[:120]
                    for each in value
                    if isinstance(each, dict) and each.get("name")
                )

    try:
        gather(events(), trace)
    except InvalidFileError as error:
        reason = str(error).removeprefix(f"{show_path(path)}: ")
        raise InvalidFileError(f"{show_path(path)} is no Chrome trace: {reason}") from None
    if not trace.device and not any(trace.host.values()):
        what = (
            "no event of it has a name and a time"
            if trace.damaged
            else "it holds no op and no kernel"
        )
        raise InvalidFileError(f"{show_path(path)} is no Chrome trace: {what}")
    trace.device_names = tuple(dict.fromkeys(names))
    return trace


def gather(events: Iterable[Any], trace: Trace | None = None) -> Trace:
    """Return the events that matter of a Chrome trace's.

    Args:
        events: as the file has them; times in microseconds.
        trace: is added to.
    """
    trace = Trace() if trace is None else trace
    # Sizes and names repeat thousands of times; one object of each is kept.
    known: dict[Any, Any] = {}
    for event in events:
        if not isinstance(event, dict) or event.get("ph") != "X":
            continue
        category = event.get("cat")
        kind = _KINDS.get(category.lower()) if isinstance(category, str) else None
        if kind is None:
            continue
        made = _event(kind, event, known)
        if made is None:
            trace.damaged += 1
        elif kind in DEVICE_KINDS:
            trace.device.append(made)
        else:
            trace.host.setdefault(made.thread, []).append(made)
    return trace


def _event(kind: str, event: dict[str, Any], known: dict[Any, Any]) -> Event | None:
    begin, length = _microseconds(event.get("ts")), _microseconds(event.get("dur", 0.0))
    name = event.get("name")
    if begin is None or length is None or length < 0 or not isinstance(name, str):
        return None
    found = event.get("args")
    args = found if isinstance(found, dict) else {}
    name = name[:_LONGEST_NAME]
    name = known.setdefault(name, name)
    correlation, external = _id(args.get("correlation")), _id(args.get("External id")) or None
    thread = f"{event.get('pid')!s:.60}/{event.get('tid')!s:.60}"
    thread = known.setdefault(thread, thread)
    if kind in DEVICE_KINDS:
        device, stream = args.get("device", event.get("pid")), args.get("stream", event.get("tid"))
        place = (f"{device!s:.60}", f"{stream!s:.60}")
        place = known.setdefault(place, place)
        return Event(kind, name, begin, length, thread, correlation, external, place)
    if kind != "op":
        return Event(kind, name, begin, length, thread, correlation, external)
    return Event(
        kind, name, begin, length, thread, correlation, external,
        sizes=_kept(args.get("Input Dims"), known),
        types=_texts(args.get("Input type"), known),
        values=_texts(args.get("Concrete Inputs"), known),
    )  # fmt: skip


def _microseconds(value: Any) -> float | None:
    """Return a time, from a number or a text of one; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < _MOST_US else None


def _id(value: Any) -> int | str | None:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return value
    return None


def _kept(value: Any, known: dict[Any, Any]) -> tuple[Any, ...]:
    """Return nested lists of sizes as tuples; what is no whole number from 0 becomes None."""
    if not isinstance(value, list):
        return ()
    made = tuple(
        _kept(item, known)
        if isinstance(item, list)
        else item
        if type(item) is int and 0 <= item < 2**62
        else None
        for item in value
    )
    return known.setdefault(made, made)  # type: ignore[no-any-return]


def _texts(value: Any, known: dict[Any, Any]) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    made = tuple(item[:80] if isinstance(item, str) else "" for item in value)
    return known.setdefault(made, made)  # type: ignore[no-any-return]
