"""Tables of TensorRT Edge-LLM's documentation (v0.4 to v0.8), one row per model, mode and batch.

The tool's own clocks run around its engines on the device: `prefill_s` the language model's prefill,
`vit_s` the vision encoder with its merger, tokens per second the decode. No queue, no preprocessing, no
detokenising. Decode rates of speculative modes (EAGLE3, MTP) are no steps of the model and are left out;
how long the run was is not said, so a step is priced at its beginning. Where a table lacks the prompt's
length only its vision encoder can be used. Tested on the tables of v0.4 to v0.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiling.importing.fields import count, positive, seconds, text
from profiling.importing.foreign import ForeignRun, once, present
from profiling.importing.formats import Format
from profiling.records.measurement import StageSamples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from profiling.importing.content import Content

BOUNDARY = (
    "around the tool's own engines on the device: vision is the encoder with its merger, prefill the "
    "language model's, decode one step at an unknown point of the run; no queue, no preprocessing"
)


def _runs(content: Content) -> Iterator[ForeignRun]:
    for number, row in enumerate(content.rows, 1):
        yield _of(row, f"row {number}")


def _of(row: Mapping[str, Any], where: str) -> ForeignRun:
    batch = count(row.get("batch"))
    prompt = count(row.get("prefill_tokens"))
    visual = 0 if row.get("kind") == "LLM" else count(row.get("vit_tokens"))
    if visual and batch:
        # The table counts the tokens of all sequences.
        visual = round(visual / batch)
    stages = {"vision": once(seconds(row.get("vit_s")))}
    left_out = None
    why_missing: dict[str, str] = {}
    if prompt is not None:
        stages["prefill"] = once(seconds(row.get("prefill_s")))
        rate = positive(row.get("decode_tok_s"))
        if row.get("mode") == "Vanilla" and rate is not None and batch is not None:
            step = batch / rate
            stages["decode"] = StageSamples(event_s=(step,), step_event_s=((step,),))
    elif visual and seconds(row.get("vit_s")) is not None:
        # The encoder's time depends on no text.
        prompt = visual + 1
        why_missing["text_tokens"] = "not in the table; 1 stands for it, and no stage here reads it"
    else:
        left_out = "the table does not give the prompt's length"
    return ForeignRun(
        where=where,
        boundary=BOUNDARY,
        stages=present(stages),
        model=text(row.get("model")),
        device_name=text(row.get("device")),
        dtype=text(row.get("dtype")),
        batch_size=batch,
        prompt_tokens=prompt,
        visual_tokens=visual,
        mode="compile",
        decode_steps=1 if "decode" in stages else 0,
        environment={} if (release := text(row.get("release"))) is None else {"edge_llm": release},
        why_missing=why_missing,
        left_out=left_out,
    )


FORMAT = Format(
    "TensorRT Edge-LLM tables (.csv)",
    "tested on the tables of v0.4 to v0.8",
    lambda content: {"prefill_s", "vit_s", "decode_tok_s"} <= content.names,
    _runs,
)
