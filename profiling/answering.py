"""A question about pictures, answered by a checkpoint under a method, its stages timed."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from costmodel.quantities import STAGES
from hardware_specs.errors import InvalidInputError
from profiling.measuring.campaign import MOST_SEED
from profiling.subject.checkpoint import new_tokens

if TYPE_CHECKING:
    from profiling.instruments.recorder import Recorder
    from token_reduction import Method
    from token_reduction.apply import ReductionRecord


def check_sampling(max_new_tokens: int, temperature: float, seed: int = 0) -> None:
    """Refuse an answer of fewer than one token, a temperature or seed that no sampler takes.

    Raises:
        InvalidInputError: one of them.
    """
    if max_new_tokens < 1:
        raise InvalidInputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    if not 0 <= temperature < math.inf:
        raise InvalidInputError(f"temperature must be 0 or more and finite, not {temperature}")
    if not 0 <= seed <= MOST_SEED:
        raise InvalidInputError(f"seed must be a whole number from 0 to {MOST_SEED}, not {seed}")


def answer(
    model: Any,
    processor: Any,
    inputs: dict[str, Any],
    method: Method | None = None,
    *,
    device: str,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    warm_up: bool = False,
    trace: bool = False,
) -> tuple[ReductionRecord | None, dict[str, Any]]:
    """Generate once, and return what was reduced and the JSON document of the answer.

    Args:
        model: from `load_checkpoint`.
        processor: likewise.
        inputs: from `inputs_of`.
        method: what reduces the visual tokens; None reduces nothing.
        device: where the model is.
        max_new_tokens: tokens of the answer at most.
        temperature: 0 for the likeliest token, else sampled.
        seed: of the sampling.
        warm_up: run once before the run that is timed.
        trace: keep which tokens were kept, and by what scores.

    Raises:
        InvalidInputError: as `check_sampling`.
    """
    import torch

    from profiling.devices.device import clock_for
    from profiling.instruments.recorder import Recorder
    from profiling.subject.stages import StageHooks, anatomy
    from token_reduction import reduce_tokens

    check_sampling(max_new_tokens, temperature, seed)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
    if temperature > 0:
        settings["temperature"] = temperature
    clock = clock_for(device)
    recorder = Recorder(clock)
    hooks = StageHooks(anatomy(model))
    reduction = nullcontext() if method is None else reduce_tokens(model, method, trace=trace)
    with torch.no_grad(), reduction as record:
        if warm_up:
            new_tokens(model, processor, inputs, **settings | {"max_new_tokens": 2})
        hooks.attach()
        try:
            torch.manual_seed(seed)
            clock.synchronize()
            with hooks.observing(_Steps(recorder)):
                recorder.begin("total")
                new = new_tokens(model, processor, inputs, **settings)
                recorder.end("total")
            recorder.close()
            clock.synchronize()
        finally:
            hooks.detach()
    (times,) = recorder.collect()
    before, after = (None, None) if record is None else record.visual_tokens
    return record, {
        "answer": processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
        "new_tokens": len(new),
        "prompt_tokens": inputs["input_ids"].shape[1],
        "visual_tokens_before": before,
        "visual_tokens_after": after,
        "times_s": _times(times.event_s),
        "clock": clock.name,
        "device": device,
        "dtype": str(model.dtype).removeprefix("torch."),
        "warmed_up": warm_up,
        "reduction": None if record is None else record.to_dict(),
        "notes": [] if record is None else list(record.notes),
    }


def _times(seconds: dict[str, list[float]]) -> dict[str, float | None]:
    """Return seconds by stage, of a decode step and in all; None for a stage that did not run."""
    times: dict[str, float | None] = {
        stage: sum(seconds[stage]) if stage in seconds else None for stage in STAGES
    }
    steps = seconds.get("decode", [])
    times["decode_per_token"] = sum(steps) / len(steps) if steps else None
    times["total"] = sum(seconds["total"])
    return times


class _Steps:
    """Tells a recorder's prefill and decode steps apart: the first pass is the prefill."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._passes = 0

    def begin(self, stage: str) -> None:
        self._recorder.begin(self._name(stage))

    def end(self, stage: str) -> None:
        self._recorder.end(self._name(stage))
        self._passes += stage == "prefill"

    def _name(self, stage: str) -> str:
        return "decode" if stage == "prefill" and self._passes else stage
