"""The questions people ask of a sweep over visual tokens.

- Below how many visual tokens does latency stop falling (the knee)?
- How many visual tokens fit a latency or a memory budget?
- What does one more visual token cost (marginal milliseconds)?
- What is the largest batch that fits?

The first three price every count from 1 to the most asked about in one vectorised call, the last
closes in on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.estimates import answer
from costmodel.kinds import check_budget, refused
from costmodel.methods import chosen_method
from costmodel.quantities import MOST_TOKENS
from costmodel.questions.sweep_plan import CHUNK_ROWS, SweepPlan
from costmodel.questions.sweeps import sweep_chunks
from costmodel.request import Request
from costmodel.scenario import within_budget
from costmodel.time_source import IDEAL, TimeSource
from costmodel.written_tables import WrittenTable
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.questions.chunks import Chunk

#: Latency counts as flat below a number of tokens when dropping all of them saves less than this share.
FLAT_SHARE = 0.10
#: Tokens on either side over which the marginal time is taken: latency is a staircase, and one step
#: says nothing of the slope.
SLOPE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Latency and memory against visual tokens, and what follows from them.

    Attributes:
        visual_tokens: the counts that can be priced, ascending.
        ttft_s: time to the first token at each count, seconds.
        peak_memory_bytes: peak memory at each count, bytes.
        marginal_s: seconds one more visual token costs at each count, over 64 tokens to either side.
        knee_tokens: the count below which latency is flat: dropping every visual token there saves
            under 10 % of the time of prefill and reduction.
        floor_s: the time to the first token at the smallest count, seconds.
        most_within_latency: the most visual tokens within the latency budget; None without a
            budget, -1 if not even one fits.
        most_within_memory: the most visual tokens that fit the memory budget, likewise.
        warnings: what `estimate` warns of at the largest count, one sentence each.
        source: what the times rest on, at the largest count.
    """

    visual_tokens: np.ndarray[Any, Any]
    ttft_s: np.ndarray[Any, Any]
    peak_memory_bytes: np.ndarray[Any, Any]
    marginal_s: np.ndarray[Any, Any]
    knee_tokens: int
    floor_s: float
    most_within_latency: int | None
    most_within_memory: int | None
    warnings: tuple[str, ...] = ()
    source: TimeSource = IDEAL

    def __repr__(self) -> str:
        """Say the answers; the curves would fill pages."""
        return (
            f"<BreakEven: {len(self.visual_tokens)} counts, flat up to {self.knee_tokens} visual tokens, "
            f"floor {self.floor_s * 1e3:.2f} ms>"
        )

    def _repr_html_(self) -> str:
        rows = tuple((name.replace("_", " "), str(value)) for name, value in self.to_dict().items())
        return WrittenTable(repr(self)[1:-1], ("answer", "value"), rows).html()

    def to_dict(self) -> dict[str, Any]:
        """Return the answers, without the curves."""
        return {
            "knee_tokens": self.knee_tokens,
            "floor_s": self.floor_s,
            "most_within_latency": self.most_within_latency,
            "most_within_memory": self.most_within_memory,
            "marginal_s_at_most": float(self.marginal_s[-1]),
            "visual_tokens": [int(self.visual_tokens[0]), int(self.visual_tokens[-1])],
            "calibration": self.source.to_dict(),
            "warnings": list(self.warnings),
        }


def break_even(
    model: Any,
    hardware: Any,
    *,
    most: int | None = None,
    latency_s: float | None = None,
    memory_bytes: float | None = None,
    **arguments: Any,
) -> BreakEven:
    """Price every visual-token count from 1 to `most`; find the knee and the most within the budgets.

    Counts that a method cannot start from, such as half a crop for one inside the vision tower, are left
    out.

    Args:
        model: as `estimate` takes it.
        hardware: as `estimate` takes it.
        most: the largest count looked at; None is what the image or clip gives, or the model's own.
        latency_s: budget for the time to the first token, seconds.
        memory_bytes: budget for the peak memory, bytes; None is the device's, less `memory_margin_bytes`.
        arguments: any other argument of `sweep`, one value each.

    Raises:
        InvalidInputError: a budget that is not positive, a text-only model, or a method told to
            keep a count of tokens that vary, or unable to start from any of the counts.

    >>> answer = break_even("llava-1.5-7b", "nvidia-a100-sxm4-80gb", latency_s=0.020)
    >>> answer.most_within_latency < 576
    True
    """
    from costmodel.models import load_model

    check_budget("latency_s", latency_s)
    check_budget("memory_bytes", memory_bytes)
    if "visual_tokens" in arguments:
        raise InvalidInputError("break_even varies visual_tokens itself; bound it with most=")
    request = _one_value_each(model, hardware, arguments)
    config = within_budget(load_model(request.model), request)
    if config.vision is None:
        raise InvalidInputError(f"{config.name} has no vision tower, so no visual tokens to vary")
    method, keep, _ = chosen_method(request.method, request.keep, request.layer)
    if method is not None and isinstance(keep, int):
        raise InvalidInputError(
            f"break_even varies the visual tokens, so {keep} of them are no setting of "
            f"{method.name}; give keep as a ratio"
        )
    image = config.visual_input(
        image_size=request.image_size, frames=request.frames, images=request.images
    )
    counts = np.arange(1, _checked(image.tokens if most is None else most) + 1)
    if request.frames is None and not config.takes_clips and counts[-1] <= image.tokens:
        # What is left of one image, also where the count might be that of several small ones.
        arguments.setdefault("images", 1)
    chunks: list[Chunk] = []
    unable: InvalidInputError | None = None
    for start in range(0, len(counts), CHUNK_ROWS):
        piece = counts[start : start + CHUNK_ROWS]
        while len(piece):
            try:
                chunks += sweep_chunks(
                    model, hardware, visual_tokens=piece, stage_columns=True, **arguments
                )
                break
            except InvalidInputError as error:
                # A method may be unable to start from some of the counts.
                if error.rows is None:
                    raise
                piece, unable = piece[~error.rows], unable or error
    if unable is not None and not chunks:
        raise unable
    columns = (
        "visual_tokens", "ttft_s", "prefill_time_s", "reduction_time_s", "peak_memory_bytes",
    )  # fmt: skip
    counts, ttft, prefill, reduction, peak = (
        np.concatenate([chunk.columns[name] for chunk in chunks]) for name in columns
    )
    budget = _budget(memory_bytes, request)
    largest = replace(
        request, visual_tokens=int(counts[-1]), images=arguments.get("images", request.images)
    )
    cost = answer(largest)
    return BreakEven(
        counts,
        ttft,
        peak,
        _slope(counts, ttft),
        knee(counts, prefill + reduction),
        float(ttft[0]),
        None if latency_s is None else _most(counts, ttft, latency_s),
        None if budget is None else _most(counts, peak, budget),
        cost.warnings,
        cost.calibration,
    )


def _one_value_each(model: Any, hardware: Any, arguments: dict[str, Any]) -> Request:
    """Return the request whose visual tokens or batch are varied.

    Raises:
        InvalidInputError: an argument with several values.
    """
    plan = SweepPlan(model, hardware, **arguments)
    if plan.rows != 1:
        raise InvalidInputError("one value per argument is needed here; sweep takes lists")
    return Request(**plan.combination(0))


def _budget(memory_bytes: float | None, request: Request) -> float | None:
    if memory_bytes is not None:
        return memory_bytes
    capacity = get_hardware(request.hardware).usable_memory_bytes
    return None if capacity is None else capacity - request.memory_margin_bytes


def _checked(most: int) -> int:
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 10_000_000:
        raise refused("most", "a whole number from 1 to 10000000", most)
    return most


def knee(counts: Any, time_s: Any) -> int:
    """Return the largest count up to which the time is flat: within `FLAT_SHARE` of the first one's.

    >>> knee([1, 16, 64, 144, 576], [10.0, 10.1, 10.2, 14.0, 40.0])
    64
    """
    times = np.asarray(time_s, dtype=float)
    rising = np.flatnonzero(times * (1 - FLAT_SHARE) > times[0])
    return int(counts[rising[0] - 1]) if len(rising) else int(counts[-1])


def _slope(counts: np.ndarray[Any, Any], time_s: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return seconds per token at each count, from the counts up to `SLOPE_TOKENS` below and above."""
    low = np.searchsorted(counts, counts - SLOPE_TOKENS)
    high = np.searchsorted(counts, counts + SLOPE_TOKENS, side="right") - 1
    return np.asarray((time_s[high] - time_s[low]) / np.maximum(counts[high] - counts[low], 1))


def _most(counts: np.ndarray[Any, Any], value: np.ndarray[Any, Any], budget: float) -> int:
    """Return the largest count within the budget, -1 if there is none.

    Latency is a staircase that also steps down, so the largest count is looked for, not the first
    that breaks the budget.
    """
    within = np.flatnonzero(value <= budget)
    return int(counts[within[-1]]) if len(within) else -1


def largest_batch(
    model: Any, hardware: Any, *, memory_bytes: float | None = None, **arguments: Any
) -> int:
    """Return the largest batch whose peak memory fits, 0 if not even one sample does.

    The budget in bytes is by default the device's memory less `memory_margin_bytes`; `arguments` are any
    other of `sweep`, one value each. What `estimate` warns of for the same arguments holds here too, such as
    the dtype that stands in for a checkpoint's own.

    Raises:
        InvalidInputError: a budget that is not positive, or a device that states no capacity.

    >>> largest_batch("llava-1.5-7b", "nvidia-l4", memory_margin_bytes=0)
    26
    """
    check_budget("memory_bytes", memory_bytes)
    if "batch_size" in arguments:
        raise InvalidInputError("largest_batch varies batch_size itself; leave it out")
    request = _one_value_each(model, hardware, arguments)
    budget = _budget(memory_bytes, request)
    if budget is None:
        raise InvalidInputError(
            f"{hardware} states no memory capacity; give the budget with memory_bytes="
        )
    fits, beyond = 0, MOST_TOKENS + 1
    # Memory grows with the batch: look at a thousand batches between, and again between two of them.
    while beyond - fits > 1:
        batches = np.unique(np.geomspace(fits + 1, beyond - 1, 1000).astype(np.int64))
        chunks = sweep_chunks(model, hardware, batch_size=batches, **arguments)
        peaks = np.concatenate([chunk.columns["peak_memory_bytes"] for chunk in chunks])
        within = int(np.count_nonzero(peaks <= budget))
        fits = int(batches[within - 1]) if within else fits
        beyond = int(batches[within]) if within < len(batches) else beyond
    return fits
