"""What a trace says, as one HTML file in the report's look, and its ops on the roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiling.explaining.comparison import PARTS
from profiling.reconciling.gap import LABELS
from profiling.reconciling.gap import PARTS as GAP_PARTS
from profiling.report.html import definitions, items, number, page, picture, section, table, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from profiling.explaining.explanation import Explanation
    from profiling.explaining.roofs import OpRow

#: Ops in the page's table; the JSON has more.
MOST_OPS = 80
#: Classes of a trace -> those of the roofline's legend.
_PLACED = {"softmax": "norm", "reduce": "pointwise", "select": "copy"}


def explanation_html(found: Explanation, figure: Figure | None = None) -> str:
    """Return what a trace says as one HTML document; `figure` is its roofline."""
    pieces = [
        tag("h1", f"Explained: {found.source}"),
        tag("p", found.sentence, "lead"),
        _overview(found),
        _comparison(found),
        _against(found),
        _layers(found),
        _shares(found),
        _figure(figure),
        _ops(found.ops),
    ]
    return page(f"Explained: {found.source}", [piece for piece in pieces if piece])


def _ms(seconds: float | None) -> str:
    return number(None if seconds is None else seconds * 1e3, ".4g")


def _overview(found: Explanation) -> str:
    whole = found.kernel_time_s or 1.0
    pairs: list[tuple[str, object]] = [
        ("device", found.device),
        ("calibration", "none" if found.calibration is None else found.calibration.name),
        ("device time", f"{_ms(found.kernel_time_s)} ms"),
        ("attributed", f"{found.attributed_time_s / whole:.1%}"),
        ("unattributed", f"{found.unattributed_time_s / whole:.1%}"),
        ("copies", f"{found.copies_time_s / whole:.1%}"),
        ("idle", f"{_ms(found.idle_s)} ms of {_ms(found.time.span_s)} ms"),
        ("waiting for the host", f"{found.time.host_bound_share:.1%} of the span"),
        ("launches", found.time.launches),
    ]
    return section("overview", "What the trace holds", definitions(pairs), items(found.notes))


def _comparison(found: Explanation) -> str:
    both = found.comparison
    if both is None:
        return ""
    rows = [
        [
            PARTS[part.name],
            _ms(part.before_s),
            _ms(part.after_s),
            _ms(part.expected_s),
            _ms(part.lost_s),
        ]
        for part in sorted(both.parts, key=lambda part: -part.lost_s)
    ]
    rows.append(
        ["all", _ms(both.time_before_s), _ms(both.time_after_s), _ms(both.expected_s),
         _ms(both.time_after_s - both.expected_s)]
    )  # fmt: skip
    heads = ("part", "before ms", "after ms", "had it followed the tokens, ms", "lost ms")
    return section(
        "two", f"From the cut in tokens to the cut in time: {both.source}", table(heads, rows)
    )


def _against(found: Explanation) -> str:
    against = found.against
    if against is None:
        return ""
    parts = [name for name in GAP_PARTS if any(row[name] for row in against.rows)]
    rows = [
        [row["stage"], _ms(row["measured_s"]), _ms(row["device_s"]), _ms(row["predicted_s"]),
         _ms(row["ideal_s"]), *(_ms(row[name]) for name in parts)]
        for row in against.rows
    ]  # fmt: skip
    heads = ("stage", "measured ms", "of it on the device", "predicted ms", "ideal ms",
             *(LABELS[name] for name in parts))  # fmt: skip
    return section(
        "model",
        f"Beside the estimate of {against.model}",
        table(heads, rows),
        items(against.flags, "flags"),
    )


def _layers(found: Explanation) -> str:
    rows = [
        [layer["says"], layer["batch"], layer["passes"], _ms(layer["time_s"])]
        for layer in found.layers
    ]
    if not rows:
        return ""
    return section("layers", "Layers", table(("layers", "sequences", "passes", "ms"), rows))


def _shares(found: Explanation) -> str:
    whole = found.kernel_time_s or 1.0
    stages = [[name, _ms(time), f"{time / whole:.1%}"] for name, time in found.stages.items()]
    classes: list[Sequence[Any]] = [
        [row["op_class"], row["kernels"], _ms(row["time_s"]), f"{row['time_s'] / whole:.1%}",
         _ms(row["ideal_s"] or None), _ms(row["predicted_s"] or None),
         number(row["predicted_s"] / row["priced_s"] if row["priced_s"] else None, ".2f")]
        for row in found.by_class()
    ]  # fmt: skip
    families = [[each.kind, each.name, each.kernels, _ms(each.time_s)] for each in found.families]
    heads = ("class", "kernels", "ms", "share", "ideal ms", "predicted ms", "predicted / measured")
    pieces = [
        table(("stage", "ms", "share"), stages),
        table(heads, classes),
        table(("kernels", "implementation", "count", "ms"), families, words=(0, 1)),
    ]
    if found.unlinked_classes:
        unlinked = [[name, _ms(time)] for name, time in found.unlinked_classes.items()]
        pieces.append(table(("linked to no op, by the kernel's name", "ms"), unlinked))
    return section("shares", "Where the time went", *pieces)


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return ""
    from costmodel.plots import figure_bytes

    caption = "Ops as they were measured (filled) and as they are predicted (hollow)."
    return section(
        "roofline", "Under the roof", picture(figure_bytes(figure, "svg"), caption, caption)
    )


def _ops(rows: Sequence[OpRow]) -> str:
    shown = [
        [row.stage, row.name, row.sizes, row.calls, _ms(row.time_s), _ms(row.ideal_s),
         _ms(row.predicted_s), row.kernel[:80]]
        for row in rows[:MOST_OPS]
    ]  # fmt: skip
    heads = ("stage", "op", "sizes", "calls", "ms", "ideal ms", "predicted ms", "longest kernel")
    return section("ops", "Op by op", table(heads, shown, words=(0, 1, 2, 7)))


def ops_with_roofs(found: Explanation) -> list[OpRow]:
    """Return the ops that stand somewhere under their device's roof."""
    return [
        row for row in found.ops if row.ideal_s and row.flops and row.hbm_bytes and row.time_s > 0
    ]


def plot_explanation(found: Explanation) -> Figure:
    """Return the roofline of the trace's device with its ops.

    Raises:
        InvalidInputError: no op has a roof: the device, sizes or times are not known.
    """
    from costmodel.plots import PlacedOp, plot_roofline
    from hardware_specs.errors import InvalidInputError

    rows = ops_with_roofs(found)
    matrix = [row for row in rows if row.op_class == "gemm"] or rows
    if found.hardware is None or not matrix:
        raise InvalidInputError(
            f"no op of {found.source} can be placed: the device, their sizes or their times are not known"
        )

    def placed(row: OpRow, time_s: float) -> Any:
        op_class = row.cost.op_class if row.cost is not None else row.op_class
        return PlacedOp(
            f"{row.stage} {row.name.rpartition(':')[2]}", _PLACED.get(op_class, op_class),
            float(row.flops or 0), float(row.hbm_bytes or 0), time_s,
        )  # fmt: skip

    return plot_roofline(
        found.hardware,
        [placed(row, row.predicted_s) for row in rows if row.predicted_s],
        dtype=matrix[0].dtype,
        title=f"{found.source}: ops of a trace",
        measured=[placed(row, row.time_s) for row in rows],
    )
