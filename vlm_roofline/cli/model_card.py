"""An estimate as a few lines of Markdown, for a model card or an issue."""

from __future__ import annotations

from importlib.metadata import version
from shlex import quote
from typing import TYPE_CHECKING, Any

from costmodel.estimates import estimate
from costmodel.request import plain
from costmodel.schedule import schedule_text
from costmodel.written_tables import WrittenTable
from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import harmless
from vlm_roofline.cli.options import written
from vlm_roofline.cli.units import show_bytes, show_flops, show_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.result import Estimate


def model_card(cost: Estimate, given: Mapping[str, Any]) -> str:
    """Return an estimate as a Markdown table, with what its times rest on and the command that gives it.

    Raises:
        InvalidInputError: another tool's convention, which has neither intervals nor a timeline of memory.
    """
    if cost.inputs["convention"] != "torch":
        raise InvalidInputError(
            "--markdown prints this project's own counting; leave --convention out"
        )
    totals, memory, steps = cost.totals, cost.memory, cost.inputs["output_tokens"]
    first = totals if not steps else estimate(**{**given, "output_tokens": 0}).totals
    rows: list[tuple[Any, ...]] = [
        ("time to the first token", totals.ttft_s, first.time_low_s, first.time_high_s)
    ]
    if steps:
        decode = cost.stages["decode"]
        ends = decode.time_low_s / steps, decode.time_high_s / steps
        rows.append(("time per output token", totals.tpot_s, *ends))
        rows.append(("whole request", totals.time_s, totals.time_low_s, totals.time_high_s))
    cells = [(name, *map(show_time, times)) for name, *times in rows]
    held = show_bytes(memory.capacity_bytes)
    fits = "" if memory.fits is None else f"{'fits' if memory.fits else 'does not fit'} in {held}"
    cells.append(("peak memory", show_bytes(memory.peak_memory_bytes), fits, ""))
    cells.append(("FLOPs", show_flops(totals.flops), "", ""))
    table = WrittenTable("", ("", "predicted", "from", "to"), tuple(cells)).markdown()
    words = ["vlm-roofline estimate", quote(str(plain(given["model"])))]
    words += ["-d", quote(str(plain(given["hardware"])))]
    rest = {name: value for name, value in given.items() if name not in ("model", "hardware")}
    command = harmless(" ".join([*words, *written(rest)])).replace("`", "'").replace("\n", " ")
    return f"{_subject(cost)}\n\n{table}\n\n{_source(cost)}: `{command}`"


def _subject(cost: Estimate) -> str:
    given = cost.inputs
    text = (
        f"{given['model']} on {given['hardware']}, {given['precision']}, {given['visual_tokens']} visual "
        f"and {given['text_tokens']} text tokens, batch {given['batch_size']}"
    )
    if given["output_tokens"]:
        text += f", {given['output_tokens']} output tokens"
    if given["method"] != "none":
        text += f"; {given['method']}: {schedule_text(cost.visual_tokens_by_layer)}"
    return _text(text)


def _source(cost: Estimate) -> str:
    name = cost.inputs["calibration"]
    basis = "the ideal roofline" if name is None else f"calibration {name}, 90 % intervals"
    return _text(f"Predicted, not measured, by vlm-roofline {version('vlm-roofline')} ({basis})")


def _text(text: str) -> str:
    """Return a text in which Markdown marks nothing and HTML begins nowhere."""
    escaped = "".join(f"\\{letter}" if letter in r"\`*_[]|<>#" else letter for letter in text)
    return harmless(escaped).replace("\n", " ")
