"""The parts of a sweep, priced here, by processes of this machine or on a Ray cluster, in whatever order.

A part is so many pieces of a `SweepPlan`, by number, so that who prices it again finds the same rows: a part
whose worker was killed is given to another one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.kinds import refused
from costmodel.questions.reducers import Part, Reducer
from hardware_specs.cluster import check_ray, connected
from hardware_specs.errors import InvalidInputError, UnsupportedError, VlmRooflineError
from hardware_specs.showing import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    import pandas as pd

    from costmodel.questions.chunks import Chunk
    from costmodel.questions.sweep_plan import SweepPlan

#: Pieces of a part: 390,000 rows of a large grid, less than a second's work.
PART_PIECES = 64
MOST_WORKERS = 1024
#: Parts that are given out at once, for each worker: one more than it works on.
_AHEAD = 2
#: Pools that break in a row, no part being finished meanwhile, before the sweep gives up.
_MOST_DEATHS = 3


class Done(NamedTuple):
    """What became of a part.

    Attributes:
        state: the reducer's.
        warnings: what the combinations have to say.
        unpriced: rows that could not be priced.
        refusal: why the part could not be had; empty where it could.
    """

    state: Any = None
    warnings: tuple[str, ...] = ()
    unpriced: int = 0
    refusal: str = ""


@dataclass(frozen=True)
class Job:
    """A sweep that is reduced.

    Attributes:
        plan: the grid.
        reducer: what is made of it.
        errors: as of `sweep`.
        stage_columns: as of `sweep`.
    """

    plan: SweepPlan
    reducer: Reducer[Any]
    errors: str = "raise"
    stage_columns: bool = False

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.plan.pieces() // PART_PIECES)

    def identity(self) -> dict[str, Any]:
        """Return what tells this sweep from others, as JSON has it."""
        return {
            "version": version("vlm-roofline"),
            "errors": self.errors,
            "stage_columns": self.stage_columns,
            "rows": self.plan.rows,
            "parts": self.parts,
            "arguments": self.plan.identity(),
        }

    def price(self, number: int) -> Done:
        """Price a part."""
        warnings: dict[str, None] = {}
        unpriced = 0

        def chunks() -> Iterator[Chunk]:
            nonlocal unpriced
            first = number * PART_PIECES
            for chunk in self.plan.chunks(
                stage_columns=self.stage_columns,
                errors=self.errors,
                columns=self.reducer.columns,
                part=range(first, min(first + PART_PIECES, self.plan.pieces())),
            ):
                warnings.update(dict.fromkeys(chunk.warnings))
                unpriced += chunk.rows if chunk.fixed.get("error") else 0
                yield chunk

        state = self.reducer.reduced(Part(number, chunks(), self.identity))
        return Done(state, tuple(warnings), unpriced)

    def tried(self, number: int) -> Done:
        """Price a part; an error of ours comes back as its message, for not every error can be sent."""
        try:
            return self.price(number)
        except VlmRooflineError as error:
            return Done(refusal=str(error))


def reduced(
    job: Job,
    *,
    engine: str = "local",
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Price all parts and return what the reducer makes of them; arguments as of `sweep`."""
    if not isinstance(job.reducer, Reducer):
        raise InvalidInputError(
            f"reduce is what top_k, pareto, histogram or parquet_parts returns, not {shown(job.reducer)}"
        )
    if job.stage_columns and job.reducer.columns is not None:
        raise InvalidInputError(
            "stage_columns is for all rows, in a table or as parquet_parts; picked rows have none"
        )
    if engine not in ("local", "ray"):
        raise InvalidInputError(f"engine={shown(engine)} is unknown; there is: local, ray")
    if workers is not None and (type(workers) is not int or not 1 <= workers <= MOST_WORKERS):
        raise refused("workers", f"a whole number from 1 to {MOST_WORKERS}", workers)
    if engine == "ray":
        check_ray()
        results = _on_ray(job, workers)
    else:
        processes = min(workers or _processors(), job.parts)
        results = map(job.price, range(job.parts)) if processes == 1 else _here(job, processes)
    state = None
    warnings: dict[str, None] = {}
    unpriced = 0
    for done, part in enumerate(results, 1):
        if part.refusal:
            raise VlmRooflineError(part.refusal)
        state = part.state if done == 1 else job.reducer.merged(state, part.state)
        warnings.update(dict.fromkeys(part.warnings))
        unpriced += part.unpriced
        if on_progress is not None:
            on_progress(done, job.parts)
    table = job.reducer.result(state, job.plan)
    # Who does not price every part again knows of more than was refused and said here.
    unpriced = table.attrs.get("unpriced", unpriced)
    warnings.update(dict.fromkeys(table.attrs.get("warnings", ())))
    table.attrs |= {"warnings": sorted(warnings), "rows": job.plan.rows, "unpriced": unpriced}
    return table


def _processors() -> int:
    """Return how many processors this process may use."""
    given = getattr(os, "sched_getaffinity", None)  # Linux alone tells
    return len(given(0)) if given else os.cpu_count() or 1


def _here(job: Job, workers: int) -> Iterator[Done]:
    """Yield the parts as processes of this machine finish them."""
    left = deque(range(job.parts))
    deaths = 0
    while left:
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(job,)
        )
        running: dict[int, Future[Done]] = {}
        try:
            while left or running:
                while left and len(running) < _AHEAD * workers:
                    number = left.popleft()
                    running[number] = pool.submit(_priced, number)
                wait(running.values(), return_when=FIRST_COMPLETED)
                for number in [each for each, future in running.items() if future.done()]:
                    result = running[number].result()
                    del running[number]
                    deaths = 0
                    yield result
        except BrokenProcessPool:
            left.extendleft(running)
            deaths += 1
            if deaths > _MOST_DEATHS:
                raise UnsupportedError(
                    f"{deaths} times in a row a worker died and no part was finished; is there memory for "
                    f"{workers} workers, and is the call of a script behind `if __name__ == '__main__'`? "
                    "workers=1 needs neither"
                ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_JOB: Job


def _begin(job: Job) -> None:
    """Get ready in a worker, which ends with its parent, however that ends."""
    global _JOB  # a worker has one job
    _JOB = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _priced(number: int) -> Done:
    return _JOB.tried(number)


def _on_ray(job: Job, workers: int | None) -> Iterator[Done]:
    """Yield the parts as tasks of a Ray cluster finish them, of which a process of its own tells."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_drive, args=(job, workers, sender), daemon=True)
    process.start()
    sender.close()
    try:
        for _ in range(job.parts):
            try:
                yield receiver.recv()
            except EOFError:
                raise UnsupportedError(
                    "the connection to Ray broke, as it does without its head; start again"
                ) from None
    finally:
        process.terminate()
        process.join()


def _drive(job: Job, workers: int | None, sender: Connection) -> None:
    """Keep as many tasks on the cluster as it has processors: the target of a process of its own."""
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        try:
            ray = connected()
            task = ray.remote(num_cpus=1, max_retries=_MOST_DEATHS)(Job.tried)
            held, left = ray.put(job), deque(range(job.parts))
            running: set[Any] = set()
            while left or running:
                most = workers or _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while left and len(running) < most:
                    running.add(task.remote(held, left.popleft()))
                ended, _ = ray.wait(list(running), timeout=1.0)
                for reference in ended:
                    running.remove(reference)
                    sender.send(ray.get(reference))
        except Exception as error:
            sender.send(Done(refusal=one_line(error, 500) or type(error).__name__))
