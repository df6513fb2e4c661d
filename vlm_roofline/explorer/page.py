"""The explorer as one HTML file: the grids, the scripts and the style sheet inside, nothing fetched."""

from __future__ import annotations

import base64
import json
import zlib
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from costmodel.quantities import STAGES
from hardware_specs.errors import InvalidInputError
from profiling.report.html import definitions, held_data, page, section, tag
from vlm_roofline.explorer.grid import DIGITS, Axes, price

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: A page that a mail server, a model card and a phone still take.
MOST_BYTES = 2_000_000
_SCRIPTS = ("data.js", "format.js", "charts.js", "tables.js", "main.js")


def explorer_html(
    models: Sequence[Any],
    hardware: Sequence[Any],
    axes: Axes | None = None,
    **fixed: Any,
) -> str:
    """Return the explorer of some models on some devices as one HTML document.

    Args:
        models: each as `costmodel.estimate` takes it.
        hardware: likewise.
        axes: what there is to choose from; `Axes()` unless given.
        fixed: other arguments of `costmodel.estimate`, the same everywhere.

    Raises:
        VlmRooflineError: a model or device that cannot be priced, or a page over `MOST_BYTES`.
    """
    chosen = axes or Axes()
    grids = [price(model, device, chosen, fixed) for model in models for device in hardware]
    return document(grids)


def document(grids: Iterable[Mapping[str, Any]], options: Sequence[str] = ()) -> str:
    """Return the page over some grids.

    Args:
        grids: what `price` returned.
        options: options of `estimate` that hold everywhere, as the page prints them.

    Raises:
        InvalidInputError: no grid, or a page over `MOST_BYTES`.
    """
    held = list(grids)
    if not held:
        raise InvalidInputError("the explorer needs at least one model and one device")
    pairs = [{"model": grid["model"], "hardware": grid["hardware"]} for grid in held]
    for number, pair in enumerate(pairs):
        if pair in pairs[:number]:
            raise InvalidInputError(f"{pair['model']} on {pair['hardware']} is there twice")
    index = {"digits": DIGITS, "options": list(options), "pairs": pairs}
    data = [held_data("index", "application/json", json.dumps(index))]
    data += [
        held_data(f"grid-{number}", "text/plain", _packed(grid)) for number, grid in enumerate(held)
    ]
    text = page(
        "What visual tokens cost",
        [*_body(held), *data],
        style=_read("explorer.css"),
        script="\n".join(map(_read, _SCRIPTS)),
    )
    size = len(text.encode())
    if size > MOST_BYTES:
        sizes = ", ".join(
            f"{grid['model']} on {grid['hardware']} {len(_packed(grid)) / 1e6:.2f} MB"
            for grid in held
        )
        raise InvalidInputError(
            f"the page would have {size / 1e6:.2f} MB, more than {MOST_BYTES / 1e6:g}: {sizes}; give "
            "fewer models, devices, methods or values"
        )
    return text


def _packed(grid: Mapping[str, Any]) -> str:
    text = json.dumps(grid, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _read(name: str) -> str:
    return files("vlm_roofline.explorer").joinpath(name).read_text(encoding="utf-8")


def _body(grids: Sequence[Mapping[str, Any]]) -> list[str]:
    points = sum(len(grid["points"]["refused"]) for grid in grids)
    lead = (
        f"{points:,} configurations. Every number is what the command below its choice answers, to "
        f"{DIGITS} digits."
    )
    keys = "".join(f'<span><i class="{stage}"></i>{stage}</span>' for stage in STAGES)
    options = "".join(f'<option value="{stage}">{stage}</option>' for stage in STAGES)
    return [
        tag("h1", "What visual tokens cost"),
        tag("p", lead, "lead"),
        "<noscript><p class='bad'>This page computes nothing without JavaScript; it fetches nothing "
        "with it.</p></noscript>",
        '<div class="bar">'
        '<button type="button" id="both" aria-pressed="false">Two side by side</button>'
        '<button type="button" id="csv">Download CSV</button>'
        '<button type="button" id="theme">Light or dark</button>'
        '<button type="button" id="print">Print</button></div>',
        '<div id="sides" class="sides"></div>',
        '<details id="left-out" hidden><summary>Not offered here, and why</summary>'
        '<ul id="left-out-list"></ul></details>',
        '<main id="results" aria-live="polite">',
        section(
            "answer",
            "What it costs",
            '<div class="wide"><table id="headline"></table></div>',
            tag("p", "Ranges are the 90 % interval of the calibration, or the bracket of the ideal "
                "roofline (full to no overlap).", "note"),
            '<p class="note" id="time-source"></p>',
        ),
        section(
            "stages",
            "Where the time goes",
            f'<p class="keys">{keys}</p>',
            '<div class="charts"><div>' + tag("p", "To the first token", "note")
            + '<div id="first-token-bars" class="chart"></div></div><div>'
            + tag("p", "Whole request", "note")
            + '<div id="request-bars" class="chart"></div></div></div>',
            '<div class="wide"><table id="stage-table"></table></div>',
        ),
        '<div class="charts">',
        section(
            "stairs",
            "Latency against visual tokens",
            '<div id="stairs-chart-part"><div id="stairs-chart" class="chart"></div>',
            tag("p", "Dots are priced; the line between them only joins them. Band: the interval. "
                "Dotted: the roofline at best. Square: this configuration at its mean "
                "over the layers, its method included.", "note"),
            "</div>",
        ),
        section(
            "layers",
            "Visual tokens by layer",
            '<div id="layers-chart" class="chart"></div>',
        ),
        "</div>",
        section(
            "roofline",
            "Roofline, with the ops on it",
            f'<p class="keys">{keys}<span>B hollow</span></p>',
            '<div id="roofline-chart" class="chart"></div>',
        ),
        section(
            "op-table",
            "Op by op",
            '<div class="bar"><label>Configuration <select id="ops-side">'
            '<option value="a">A</option><option value="b">B</option></select></label>'
            f'<label>Stage <select id="ops-stage"><option value="">all</option>{options}</select></label>'
            '<label>Filter <input type="search" id="ops-words" placeholder="gemm memory"></label></div>',
            '<p class="note" id="ops-sum" aria-live="polite"></p>',
            '<div class="wide"><table id="ops"></table></div>',
            '<p class="note">Where the time comes from:</p><ol id="op-sources" class="note"></ol>',
        ),
        "</main>",
        section("made", "How it was made", definitions([
            ("program", f"vlm-roofline {version('vlm-roofline')}"),
            ("models", ", ".join(dict.fromkeys(grid["model"] for grid in grids))),
            ("devices", ", ".join(dict.fromkeys(grid["hardware"] for grid in grids))),
            ("FLOPs", "one multiply-add is two; matrix products, convolutions, the full square of attention"),
            ("nothing is fetched", "this file holds all of it, and its policy forbids every connection"),
        ])),
    ]  # fmt: skip
