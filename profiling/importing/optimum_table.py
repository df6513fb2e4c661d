"""Reports of optimum-benchmark as tables: its own (`full_report.csv`) and a short form of several of them.

The clock runs around the model's calls on the device, which is waited for: `forward` is one pass over
the prompt with logits at every position (this project's prefill, but for the head), `generate` the prompt
and all new tokens; `decode` is what the later releases time of it without the prompt. Inputs are random
ids: no tokenising, no preprocessing, greedy sampling. Tested on real reports of releases 0.0.1 of 2023.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from profiling.importing.fields import count, positive, seconds, text
from profiling.importing.foreign import ForeignRun, once, present
from profiling.importing.formats import Format
from profiling.records.measurement import GENERATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from profiling.importing.content import Content

BOUNDARY = (
    "around the model's calls, the device waited for: prefill is one pass over the prompt with logits at "
    "every position; generation is the prompt and all new tokens with greedy sampling; random ids, so no "
    "tokenising and no preprocessing"
)
#: What each quantity is called in the tool's own report, and in the short form.
_LONG = {
    "model": "model", "dtype": "backend.torch_dtype", "quant": "backend.quantization_scheme",
    "flash": "backend.bettertransformer", "batch": "benchmark.input_shapes.batch_size",
    "seq": "benchmark.input_shapes.sequence_length", "new": "benchmark.new_tokens",
    "fwd_s": "forward.latency(s)", "gen_s": "generate.latency(s)", "decode_s": "decode.latency(s)",
    "fwd_max_alloc_MB": "forward.max_memory_allocated(MB)",
    "max_alloc_MB": "generate.max_memory_allocated(MB)", "task": "task",
    "torch": "backend.version", "transformers": "environment.transformers_version",
}  # fmt: skip
_SHORT = {name: name for name in _LONG}


def _runs(content: Content) -> Iterator[ForeignRun]:
    names = _LONG if _LONG["fwd_s"] in content.names else _SHORT
    for number, row in enumerate(content.rows, 1):
        yield _of({name: row.get(column) for name, column in names.items()}, row, number)


def _of(row: Mapping[str, Any], whole: Mapping[str, Any], number: int) -> ForeignRun:
    new = count(row["new"])
    steps = None if new is None else new - 1
    quant = (text(row["quant"]) or "none").lower()
    software = dict(re.findall(r"(torch|transformers) ([\w.+]+)", str(whole.get("software", ""))))
    for name in ("torch", "transformers"):
        if (version := text(row[name])) is not None:
            software[name] = version
    return ForeignRun(
        where=f"row {number}",
        boundary=BOUNDARY,
        stages=present(
            {
                "prefill": once(
                    seconds(row["fwd_s"]), peak_allocated_bytes=_bytes(row, "fwd_max_alloc_MB")
                ),
                "decode": once(seconds(row["decode_s"])),
                GENERATION: once(
                    seconds(row["gen_s"]), peak_allocated_bytes=_bytes(row, "max_alloc_MB")
                ),
            }
        ),
        model=text(row["model"]),
        device_name=text(whole.get("device")) if "gen_s" in whole else _gpu(whole),
        dtype=text(row["dtype"]) if quant == "none" else quant.partition("+")[0],
        batch_size=count(row["batch"]),
        prompt_tokens=count(row["seq"]),
        visual_tokens=0,
        decode_steps=steps,
        attention="sdpa" if str(row["flash"]).lower() == "true" else "eager",
        environment=software,
        left_out=_why(row, whole, quant),
    )


def _why(row: Mapping[str, Any], whole: Mapping[str, Any], quant: str) -> str | None:
    if str(whole.get("above_peak", "")).lower() == "true":
        return "above_peak: the file says that it is faster than the device can be"
    if quant == "bnb":
        return "bitsandbytes: the file does not say whether 4 or 8 bits"
    task = text(row["task"])
    if task not in (None, "text-generation"):
        return f"its task is {task}, not text-generation"
    return None


def _gpu(whole: Mapping[str, Any]) -> str | None:
    """Return the GPU of the tool's own report: a list of names in a cell."""
    found = re.findall(r"'([^']+)'", str(whole.get("environment.gpus", "")))
    return text(found[0]) if found and str(whole.get("device", "")).startswith("cuda") else None


def _bytes(row: Mapping[str, Any], name: str) -> int | None:
    """Return bytes of a cell in megabytes: the tool divides by a million."""
    found = positive(row[name])
    return None if found is None else round(found * 1e6)


FORMAT = Format(
    "optimum-benchmark report (.csv)",
    "tested on its reports of 2023 of an A100",
    lambda content: (
        _LONG["fwd_s"] in content.names or {"fwd_s", "gen_s", "seq", "batch"} <= content.names
    ),
    _runs,
)
