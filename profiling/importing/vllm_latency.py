"""Results of `vllm bench latency --output-json`: one batch from its prompts to its last token.

The clock runs around `LLM.generate` of one batch: scheduling, prefill, every decode step, sampling and
detokenising are inside; the prompts are token ids, so nothing is preprocessed, and no image is there. The
file holds nothing but times: model, batch, lengths and arithmetic are told beside it.

Written after the tool's own code; no real file was at hand to test it on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiling.importing.fields import all_seconds, seconds
from profiling.importing.foreign import ForeignRun, present
from profiling.importing.formats import Format
from profiling.records.measurement import GENERATION, StageSamples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.importing.content import Content

BOUNDARY = (
    "around the engine's generate call of one batch of token ids: scheduling, prefill, all decode steps, "
    "sampling, detokenising; no preprocessing, no server"
)


def _runs(content: Content) -> Iterator[ForeignRun]:
    document = content.document or {}
    times = all_seconds(document.get("latencies"), seconds(document.get("avg_latency")))
    yield ForeignRun(
        where="the result",
        boundary=BOUNDARY,
        stages=present({GENERATION: StageSamples(event_s=times)}),
        visual_tokens=0,
        mode="compile",
    )


FORMAT = Format(
    "vLLM bench latency (.json)",
    "no real file was at hand; written after the tool's own code",
    lambda content: {"avg_latency", "latencies", "percentiles"} <= content.names,
    _runs,
)
