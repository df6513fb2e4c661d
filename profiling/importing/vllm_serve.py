"""Results of `vllm bench serve --save-result`: a client's times of requests to a server.

The clock runs in the client, from sending a request to its first streamed token: network, the server's
queue, image preprocessing, tower, projector, prefill, sampling and detokenising are inside. A decode step
is the time between two streamed tokens, beside as many other requests as ran at once. The file does not
say which device and arithmetic the server had.

Written after the tool's own code; no real file was at hand to test it on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiling.importing.fields import all_seconds, count, seconds, text
from profiling.importing.foreign import ForeignRun, once, present
from profiling.importing.formats import Format
from profiling.records.measurement import TOTAL, StageSamples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from profiling.importing.content import Content

TTFT = (
    "in the client, from sending a request to its first streamed token: network, the server's queue, "
    "image preprocessing, vision tower, projector, prefill, sampling, detokenising"
)
STEP = (
    "in the client, between streamed tokens of one request, beside {most} others at most, prefills of "
    "other requests included"
)
#: Every step of a record has its time.
MOST_STEPS = 1_000_000


def _runs(content: Content) -> Iterator[ForeignRun]:
    documents = (content.document,) if content.document is not None else content.rows
    for number, document in enumerate(documents, 1):
        yield from _of(document or {}, f"result {number}")


def _of(document: Mapping[str, Any], where: str) -> Iterator[ForeignRun]:
    completed = count(document.get("completed")) or count(document.get("num_prompts"))
    per_request = {
        name: None
        if completed is None or (total := count(document.get(f"total_{name}_tokens"))) is None
        else count(total / completed)
        for name in ("input", "output")
    }
    made = per_request["output"]
    left_out = None if completed else "no request was completed"
    if made is not None and made > MOST_STEPS:
        left_out = f"no request makes {made} tokens, more than {MOST_STEPS}"
    shared: dict[str, Any] = {
        "model": text(document.get("model_id")) or text(document.get("model")),
        "prompt_tokens": per_request["input"],
        "decode_steps": None if made is None else made - 1,
        "mode": "compile",
        "left_out": left_out,
    }
    ttft = all_seconds(document.get("ttfts"), seconds(document.get("median_ttft_ms"), 1e-3))
    # A first token is one request's own, whatever ran beside it.
    yield ForeignRun(
        where=f"{where}, first token",
        boundary=TTFT,
        stages=present({TOTAL: StageSamples(event_s=ttft)}),
        batch_size=1,
        **shared,
    )
    step = seconds(document.get("median_tpot_ms"), 1e-3)
    if left_out is not None or step is None or not made or made < 2:
        return
    most = count(document.get("max_concurrency"))
    together = None if most is None or completed is None else min(most, completed)
    yield ForeignRun(
        where=f"{where}, decode",
        boundary=STEP.format(most="an unknown number of" if together is None else together - 1),
        stages=present({"decode": once(step * (made - 1), step_event_s=((step,) * (made - 1),))}),
        batch_size=together,
        **shared,
    )


FORMAT = Format(
    "vLLM bench serve (.json)",
    "no real file was at hand; written after the tool's own code",
    lambda content: {"completed", "total_input_tokens", "median_ttft_ms"} <= content.names,
    _runs,
)
