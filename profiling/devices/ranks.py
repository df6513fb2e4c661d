"""Processes that run one model together, as `torchrun` starts them: who each is, and what they agree on.

`torchrun` sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. `join` meets the others once:
over gloo on CPUs, over NCCL on GPUs, each process on the GPU of its local rank. What the processes decide
(how many repetitions, when to stop) travels over gloo in both cases, apart from what is measured.

When one process fails the others cannot go on. The first to fail leaves its reason in the store where they
met; every other one, whose connection closes or that waits in vain for `TIMEOUT_S`, raises that same reason,
and one alone is to say it (`RankError.speaks`).
"""

from __future__ import annotations

import atexit
import os
import re
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hardware_specs.errors import InvalidInputError, RankError
from hardware_specs.showing import one_line, shown
from profiling.devices.device import open_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")

#: How long a process waits for the others, in seconds.
TIMEOUT_S = 600.0
#: How long it asks the store why another one failed, in seconds.
_ASK_S = 5.0
#: kind of device -> what carries the collectives of the model.
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
_FAILURE = "vlm-roofline/failure"
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_MEETING = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Place:
    """One of several processes: its number, how many there are, and its number on this machine."""

    rank: int
    size: int
    local_rank: int


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return which of several processes this is, None for one alone.

    Args:
        environment: where `torchrun` leaves its variables; all five of them must be there.

    Raises:
        InvalidInputError: RANK, WORLD_SIZE or LOCAL_RANK is no whole number, or out of range.

    >>> given = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    >>> place(given)
    Place(rank=1, size=2, local_rank=1)
    >>> place({**given, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}) is None
    True
    """
    if any(name not in environment for name in (*_VARIABLES, *_MEETING)):
        return None
    try:
        rank, size, local = (int(environment[name]) for name in _VARIABLES)
        if not 0 <= local <= rank < size:
            raise ValueError
    except ValueError:
        given = ", ".join(f"{name}={shown(environment[name])}" for name in _VARIABLES)
        raise InvalidInputError(
            f"{given} are not what torchrun sets: 0 <= LOCAL_RANK <= RANK < WORLD_SIZE; start again with "
            "torchrun, or unset them"
        ) from None
    return None if size == 1 else Place(rank, size, local)


def world_size() -> int:
    """Return how many processes run the model together, 1 for one alone."""
    where = place()
    return 1 if where is None else where.size


class Group:
    """The processes that met; this is one of them.

    Args:
        where: which one.
        backend: what carries the model's collectives.
        store: where the processes met.
        control: the process group that carries decisions.
    """

    def __init__(self, where: Place, backend: str, store: Any, control: Any) -> None:
        self.rank, self.size, self.backend = where.rank, where.size, backend
        self._store, self._control = store, control
        self._reasons: set[str] = set()

    def same(self, value: T) -> T:
        """Return the value of rank 0 on every rank."""
        import torch.distributed as dist

        box: list[T] = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def any_of(self, flag: bool) -> bool:
        """Return on every rank whether the flag is set on one."""
        return any(self.gather(flag))

    def gather(self, value: T) -> list[T]:
        """Return on every rank the values of all, in the order of the ranks."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._control)
        return found

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Turn whatever stops this process inside the block into the error that all of them raise.

        Raises:
            RankError: something stopped this process, or another one.
        """
        try:
            yield
        except RankError:
            raise
        except Exception as error:
            raise self._failure(error, what) from error

    def _failure(self, error: BaseException, what: str) -> RankError:
        atexit.unregister(_leave)  # whoever failed never answers
        reason = one_line(error, 500)
        me = f"process {self.rank} of {self.size}"
        if _is_of_another(error):
            # Without the place in gloo's source before it and the advice behind it.
            reason = re.sub(r"^\[[^]]*\] *", "", reason).partition(". ")[0]
            mine = f"{me} lost another one at {what}: {reason}"
        else:
            mine = f"{me} failed at {what}: {type(error).__name__}: {reason}"
        return self._told(f"{mine}; nothing of this point is kept, start again to go on")

    def _told(self, mine: str) -> RankError:
        """Return the first reason that a process gave; it speaks where that is one of this process."""
        # A signal may come while another reason is being told.
        self._reasons.add(mine)
        try:
            self._store.set_timeout(timedelta(seconds=_ASK_S))
            first = self._store.compare_set(_FAILURE, "", mine).decode()
        except RuntimeError:  # the store went with the process that kept it
            first = mine
        return RankError(first, speaks=first in self._reasons)

    def _stopped(self, *_: Any) -> NoReturn:
        raise self._told(
            f"process {self.rank} of {self.size} was told to stop, as launchers do when another one has ended"
        )


_joined: Group | None = None


def join(device: str) -> Group | None:
    """Return the group of processes that this one belongs to, after meeting them; None for one alone.

    The processes meet once: a second call returns the same group.

    Args:
        device: `cuda` or `cpu`; the process takes the GPU of its local rank.

    Raises:
        InvalidInputError: a numbered device, or another kind of device than before.
        RankError: the device is missing here, or the others did not come.
    """
    global _joined
    where = place()
    if where is None:
        return None
    kind, _, number = device.partition(":")
    if number or kind not in BACKENDS:
        raise InvalidInputError(
            f"device {device!r} is given to {where.size} processes: give {' or '.join(BACKENDS)}; each takes "
            "the GPU of its LOCAL_RANK"
        )
    if _joined is None:
        _joined = _meet(where, kind)
    if _joined.backend != BACKENDS[kind]:
        raise InvalidInputError(
            f"these processes met over {_joined.backend}; measure on {device!r} in a run of its own"
        )
    return _joined


def _meet(where: Place, kind: str) -> Group:
    import torch.distributed as dist

    timeout = timedelta(seconds=TIMEOUT_S)
    backend = BACKENDS[kind]
    try:
        open_device(kind).choose(where.local_rank)
        meet: Any = vars(dist)["rendezvous"]  # public, and not named as such
        store, *_ = next(iter(meet("env://", where.rank, where.size, timeout=timeout)))
        dist.init_process_group(
            backend, store=store, rank=where.rank, world_size=where.size, timeout=timeout
        )
        control = (
            dist.group.WORLD
            if backend == "gloo"
            else dist.new_group(backend="gloo", timeout=timeout)
        )
    except Exception as error:
        raise RankError(
            f"process {where.rank} of {where.size} could not join the others over {backend}: "
            f"{one_line(error)}"
        ) from error
    atexit.register(_leave)
    return Group(where, backend, store, control)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _is_of_another(error: BaseException) -> bool:
    """Return whether an error of a collective says that another process is gone or silent."""
    import torch.distributed as dist

    network = tuple(
        found for name in ("DistBackendError", "DistNetworkError", "DistStoreError")
        if (found := getattr(dist, name, None)) is not None
    )  # fmt: skip
    text = str(error).lower()
    words = ("gloo", "nccl", "closed by peer", "reset by peer")
    return isinstance(error, RuntimeError) and (
        isinstance(error, network) or any(word in text for word in words)
    )


@contextmanager
def ending_together(group: Group | None) -> Iterator[None]:
    """Let a launcher's SIGTERM, sent when another process has ended, end this one with the reason."""
    if group is None:
        yield
        return
    before = signal.signal(signal.SIGTERM, group._stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
