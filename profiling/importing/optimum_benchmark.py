"""Results of optimum-benchmark since 0.2: `benchmark.json` (configuration and report) of one run.

The clock runs around the model's calls, the device waited for: `prefill` makes the first token from the
prompt and `decode` all others, both with greedy sampling; `forward` is one pass of a model that generates
nothing, and is left out. Inputs are random ids: no tokenising, no preprocessing. Tested on a real file of
0.5.0 whose task is no generation; that of a generation follows the tool's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiling.importing.fields import all_seconds, count, inner, positive, seconds, text
from profiling.importing.foreign import ForeignRun, present
from profiling.importing.formats import Format
from profiling.records.measurement import StageSamples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiling.importing.content import Content

BOUNDARY = (
    "around the model's generate calls, the device waited for: prefill is the prompt to its first token, "
    "decode all others, greedy sampling included; random ids, so no tokenising and no preprocessing"
)


def _runs(content: Content) -> Iterator[ForeignRun]:
    config, report = inner(content.document, "config"), inner(content.document, "report")
    backend = inner(config, "backend")
    new = count(inner(config, "scenario", "new_tokens"))
    task = text(inner(backend, "task"))
    gpus = inner(config, "environment", "gpu")
    versions = {"transformers": inner(config, "environment", "transformers_version")}
    if inner(backend, "name") == "pytorch":
        versions["torch"] = inner(backend, "version")
    yield ForeignRun(
        where="the result",
        boundary=BOUNDARY,
        stages=present({name: _samples(inner(report, name)) for name in ("prefill", "decode")}),
        model=text(inner(backend, "model")),
        device_name=text(gpus[0])
        if inner(backend, "device") == "cuda" and isinstance(gpus, list) and gpus
        else None,
        dtype=text(inner(backend, "quantization_scheme")) or text(inner(backend, "torch_dtype")),
        batch_size=count(inner(config, "scenario", "input_shapes", "batch_size")),
        prompt_tokens=count(inner(config, "scenario", "input_shapes", "sequence_length")),
        visual_tokens=0 if task == "text-generation" else None,
        decode_steps=None if new is None else new - 1,
        attention=text(inner(backend, "attn_implementation")) or "sdpa",
        environment={name: found for name, value in versions.items() if (found := text(value))},
        left_out=None if task == "text-generation" else f"its task is {task}, not text-generation",
    )


def _samples(found: Any) -> StageSamples:
    mean = seconds(inner(found, "latency", "mean"))
    megabytes = positive(inner(found, "memory", "max_allocated"))
    return StageSamples(
        event_s=all_seconds(inner(found, "latency", "values"), mean),
        peak_allocated_bytes=None if megabytes is None else round(megabytes * 1e6),
    )


FORMAT = Format(
    "optimum-benchmark (benchmark.json)",
    "tested on a real file of 0.5.0 whose task generates nothing; a generation's after the tool's code",
    lambda content: (
        {"config", "report"} <= content.names
        and inner(content.document, "config", "scenario") is not None
    ),
    _runs,
)
