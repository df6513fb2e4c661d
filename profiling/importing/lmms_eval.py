"""Results of lmms-eval with its throughput and efficiency members: means over an evaluation's requests.

The clock runs around the model's generate call, summed over all requests: tower, projector, prefill,
decode steps and sampling are inside; preprocessing is outside for Hugging Face models and inside for the
engines (vLLM, SGLang), queueing with it. Requests have different pictures and lengths: one record stands
for the mean request. How many of its tokens are visual, and the device, the file does not say.
Tested on a real file of v0.6.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from profiling.importing.fields import count, inner, positive, text
from profiling.importing.foreign import ForeignRun, once, present
from profiling.importing.formats import Format
from profiling.records.measurement import GENERATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.importing.content import Content

BOUNDARY = (
    "around the model's generate call, the mean over {requests} requests of different pictures and "
    "lengths: vision tower, projector, prefill, decode steps, sampling; {preprocessing}"
)
_ENGINE = re.compile(r"vllm|sglang|openai|trt|async", re.IGNORECASE)


def _runs(content: Content) -> Iterator[ForeignRun]:
    document = content.document
    overall = inner(document, "efficiency", "overall")
    requests = count(inner(overall, "docs"))
    elapsed = positive(inner(document, "throughput", "total_elapsed_time"))
    prompt = positive(inner(overall, "total_input_tokens"))
    made = positive(inner(document, "throughput", "total_gen_tokens"))
    backend = f"{inner(document, 'config', 'model')} {inner(document, 'config', 'model_backend')}"
    arguments = dict(
        part.split("=", 1)
        for part in str(inner(document, "config", "model_args")).split(",")
        if "=" in part
    )
    per_request = 1 / requests if requests else None
    is_engine = bool(_ENGINE.search(backend))
    yield ForeignRun(
        where="the evaluation",
        boundary=BOUNDARY.format(
            requests=requests,
            preprocessing="preprocessing and the engine's queue too"
            if is_engine
            else "no preprocessing",
        ),
        stages=present(
            {GENERATION: once(elapsed * per_request if elapsed and per_request else None)}
        ),
        model=text(arguments.get("pretrained")) or text(arguments.get("model")),
        dtype=text(arguments.get("dtype")),
        batch_size=count(inner(document, "config", "batch_size")),
        prompt_tokens=count(prompt * per_request) if prompt and per_request else None,
        decode_steps=count(made * per_request - 1, least=0) if made and per_request else None,
        mode="compile" if is_engine else "eager",
        attention="eager" if arguments.get("attn_implementation") == "eager" else "sdpa",
        left_out=None
        if per_request and elapsed
        else "it has no throughput and efficiency members: lmms-eval before v0.6, or no chat model",
    )


FORMAT = Format(
    "lmms-eval results (.json)",
    "tested on a real file of v0.6",
    lambda content: {"results", "configs", "config"} <= content.names,
    _runs,
)
