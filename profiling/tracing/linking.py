"""Device work joined with what launched it: by correlation id, launch and op, or by the op's own id.

Each call into the runtime lies inside the ranges and ops that were open on its thread when it was made,
and carries the correlation id of the work it launched; so work finds its ops in one sorted sweep over
each thread, whatever the trace's size and whichever profiler step the work ran in. Work whose launch is
not in the trace, or lies in no op, is looked for by the op's own id. On a CPU there is no device work:
the outermost op inside the innermost range stands for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.tracing.events import Event, Trace

MODULE_PREFIX = "module:"
STAGE_PREFIX = "stage:"
#: Ops that only describe a tensor anew; on a CPU they are ops like any other, but no work.
VIEWS = frozenset(
    {"alias", "as_strided", "detach", "detach_", "empty", "empty_like", "empty_strided", "expand",
     "flatten", "lift_fresh", "narrow", "permute", "select", "slice", "split", "squeeze", "t",
     "transpose", "unbind", "unflatten", "unsqueeze", "view", "view_as", "_unsafe_view"}
)  # fmt: skip


@dataclass(slots=True)
class Visit:
    """One open range or op of a thread, while its events are swept over.

    Attributes:
        event: the range or op.
        calls: how often each op was called by this range itself, so far.
    """

    event: Event
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def is_range(self) -> bool:
        """Whether it is a named range, not an op."""
        return self.event.kind == "range"


class Link(NamedTuple):
    """Device work with its launch, and with the ranges and ops around the launch, outermost first.

    Both are missing (None, empty) where the trace does not hold them.
    """

    work: Event
    launch: Event | None
    stack: tuple[Visit, ...]


def links(trace: Trace) -> Iterator[Link]:
    """Yield all device work of a trace once, in the order of its launches by thread.

    Args:
        trace: from `profiling.tracing.events`.
    """
    # A replayed graph is one launch with many kernels: keep them all.
    waiting: dict[int | str | None, list[Event]] = defaultdict(list)
    for event in trace.device:
        waiting[event.correlation].append(event)
    unlaunched = waiting.pop(None, [])
    apart: list[Link] = []
    for thread in trace.host.values():
        thread.sort(key=lambda event: (event.begin_us, -event.length_us))
        for link in _sweep(thread, waiting, on_cpu=trace.on_cpu):
            if any(not visit.is_range for visit in link.stack) or trace.on_cpu:
                yield link
            else:
                apart.append(link)
    apart += [Link(event, None, ()) for event in unlaunched]
    apart += [Link(event, None, ()) for events in waiting.values() for event in events]
    yield from _by_op(trace, apart)


def _sweep(
    thread: list[Event], waiting: dict[int | str | None, list[Event]], *, on_cpu: bool
) -> Iterator[Link]:
    stack: list[Visit] = []
    for event in thread:
        while stack and stack[-1].event.end_us <= event.begin_us:
            stack.pop()
        if event.kind == "launch":
            # Two calls can bear one id (a launch inside a driver's call): its kernels ran once.
            for work in waiting.pop(event.correlation, ()) if event.correlation is not None else ():
                yield Link(work, event, tuple(stack))
            continue
        if event.kind == "range":
            if event.name.startswith((MODULE_PREFIX, STAGE_PREFIX)):
                stack.append(Visit(event))
            continue
        outermost = not stack or stack[-1].is_range
        if outermost and stack:
            innermost_module(stack).calls[event.name] += 1
        stack.append(Visit(event))
        if on_cpu and outermost and event.name.removeprefix("aten::") not in VIEWS:
            yield Link(event, event, tuple(stack))


def innermost_module(stack: list[Visit] | tuple[Visit, ...]) -> Visit:
    """Return the innermost module's range, or the outermost visit where there is none."""
    for visit in reversed(stack):
        if visit.is_range and visit.event.name.startswith(MODULE_PREFIX):
            return visit
    return stack[0]


def _by_op(trace: Trace, apart: list[Link]) -> Iterator[Link]:
    """Yield work that no op was found for, with the ops that its own id names."""
    wanted = {link.work.external for link in apart} - {None}
    found: dict[int | str | None, tuple[Visit, ...]] = {}
    if wanted:
        for thread in trace.host.values():
            stack: list[Visit] = []
            for event in thread:
                while stack and stack[-1].event.end_us <= event.begin_us:
                    stack.pop()
                if event.kind == "op":
                    stack.append(Visit(event))
                    if event.external in wanted:
                        found[event.external] = tuple(stack)
    for link in apart:
        yield link._replace(stack=found.get(link.work.external, link.stack))
