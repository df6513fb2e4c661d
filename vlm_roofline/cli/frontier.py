"""`vlm-roofline frontier`: which method and token count is best within a budget on a device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.options import (
    Budget,
    Json,
    in_unit,
    refuse_margin,
    request_options,
    typed,
    written_to,
)
from vlm_roofline.cli.paths import typed_path
from vlm_roofline.cli.units import show_time, show_visual_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.questions.frontiers import Frontier, FrontierPoint


@request_options("visual_tokens", "method", "keep", "layer", "convention")
def frontier(
    given: dict[str, Any],
    *,
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A shipped model with published scores.", autocompletion=completes("model")
        ),
    ],
    benchmark: Annotated[
        str | None,
        typer.Option(help="pope, mme, textvqa, ...; without one, what there is is shown."),
    ] = None,
    latency_s: Annotated[
        float | None, in_unit("--latency-ms", "Budget for the request's time.")
    ] = None,
    memory_bytes: Budget = None,
    rank: Annotated[
        str, typer.Option(help="retained (against the paper's unreduced model) or score.")
    ] = "retained",
    training_free: Annotated[
        bool, typer.Option("--training-free", help="Leave out what needed training.")
    ] = False,
    measured: Annotated[
        Path | None,
        typer.Option(
            metavar="RUNS",
            parser=typed_path,
            help="Records: the time measured of a method at its tokens, beside ours.",
        ),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RESULTS",
            parser=typed_path,
            help="Your own scores: results of lmms-eval, files or folders; --benchmark is a task.",
        ),
    ] = None,
    plot: Annotated[Path | None, written_to("Save the picture here.")] = None,
    json: Json = False,
) -> None:
    """Join published accuracy with modelled cost, and say what is best within a budget."""
    from costmodel.questions.frontiers import frontier as answer

    if benchmark is None:
        if scores:
            raise InvalidInputError("--scores needs --benchmark, a task of those results")
        for name, option in typed(context).items():
            if name not in ("model", "hardware", "json"):
                raise InvalidInputError(
                    f"{option} needs --benchmark; without both, what there is is shown"
                )
        _print_benchmarks(model, json)
        return
    refuse_margin(context)
    result = answer(
        model,
        **given,
        benchmark=benchmark,
        latency_s=latency_s,
        memory_bytes=memory_bytes,
        rank=rank,
        training_free=training_free,
        scores=scores or (),
    )
    if plot is not None:
        from costmodel.plots import plot_frontier, save_figure

        save_figure(plot_frontier(result), plot)
    times = None
    if measured is not None:
        from profiling.reconciling.frontier_times import frontier_times

        times = frontier_times(result, given["hardware"], measured)
        if not any(times):
            what = "generation" if result.fixed["output_tokens"] else "time to the first token"
            warn(
                f"{measured} holds no {what} of {result.model} on {result.hardware} at batch "
                f"{result.fixed['batch_size']} under any of these methods at its tokens"
            )
    if json:
        document = result.to_dict()
        if times is not None:
            for row, time in zip(document["points"], times, strict=True):
                row["measured_s"] = time
        print_json(document)
        return
    warn(*result.warnings)
    _print(result, times)
    if given["image_size"] is not None:
        from costmodel import estimate

        console().print(f"an image gives {show_visual_tokens(estimate(model, **given).inputs)}")
    if plot is not None:
        console().print(f"wrote {plot}")


def _print_benchmarks(model: str, json: bool) -> None:
    """Show which benchmarks have published scores of a model, or of which models there are any."""
    from costmodel.accuracy.published import get_benchmark, load_scores
    from costmodel.models import load_model
    from vlm_roofline.cli.tables import Column, columns, table

    name = load_model(model).name
    rows = Counter((score.model, score.benchmark) for score in load_scores())
    own = [key for key in rows if key[0] == name]
    found = [
        {"model": of, "benchmark": key, "metric": get_benchmark(key).metric, "rows": rows[of, key]}
        for of, key in own or rows
    ]
    if json:
        print_json({"schema_version": 1, "model": name, "benchmarks": found})
        return
    out = console()
    if not own:
        out.print(f"no published scores of {name}; there are of these models:")
    models = {} if own else {"model": "model"}
    shown = [*columns(**models, benchmark="benchmark"), Column("published rows", "rows", "1"),
             Column("a score is", "metric", priority=1)]  # fmt: skip
    out.print(table(found, shown))
    out.print(f"published scores{f' of {name}' if own else ''}; give one with --benchmark")


def _print(result: Frontier, times: Sequence[float | None] | None) -> None:
    from costmodel.accuracy.rows import EVIDENCE
    from vlm_roofline.cli.tables import Column, table

    best = result.best
    measured = {} if times is None else dict(zip(map(id, result.points), times, strict=True))
    view = table(
        result.points,
        [
            Column("", lambda point: _mark(point, best)),
            Column("method", "method", whole=True),
            Column("as printed", "label"),
            Column("tokens", "visual_tokens", "1"),
            Column("score", "score", "1"),
            Column("of unreduced", "retained", "%"),
            Column("tables", _tables, priority=1),
            Column("time", "time_s", "s"),
            *([Column("measured", lambda point: measured[id(point)], "s")] if measured else []),
            Column("memory", "peak_memory_bytes", "B", priority=1),
            Column("FLOPs", "flops", "FLOP", priority=1),
            Column("training", "training", priority=2, whole=True),
            Column("read", "evidence", priority=2, whole=True),
        ],
        style=lambda point: None if point.within_budget else "dim",
    )
    out = console()
    out.print(f"{result.model} on {result.hardware}, {result.benchmark.name}")
    out.print(f"a score is: {result.benchmark.metric}")
    out.print(view)
    out.print("> best within the budget   * nobody is as good and faster   x over the budget")
    out.print("tables: whose the score is, and the range over all tables that have the setting")
    if any(point.hearsay for point in result.points):
        out.print("? one table, of a rival or a benchmark: never the best")
    used = {point.evidence for point in result.points}
    out.print(
        "read: " + "; ".join(f"{code} {text}" for code, text in EVIDENCE.items() if code in used)
    )
    if best is None:
        out.print("nothing published fits the budget")
    else:
        tokens = "" if best.visual_tokens is None else f" at {best.visual_tokens} visual tokens"
        out.print(
            f"best: {best.method}{tokens} ({best.label}, {best.paper} Table {best.table}): "
            f"{best.score:g} in {show_time(best.time_s)}"
        )
    if result.unpriced:
        known = Counter(row.method for row in result.unpriced)
        names = ", ".join(f"{name} ({count})" for name, count in known.items())
        warn(f"rows that are not priced, by method: {names}; --json has each with its reason")


def _tables(point: FrontierPoint) -> str:
    """Say whose table a score stands in, and how far others are from it."""
    if point.tables == 1 or point.retained_low is None or point.retained_high is None:
        return point.owner
    return (
        f"{point.owner}, {point.tables}: "
        f"{100 * point.retained_low:.0f}-{100 * point.retained_high:.0f} %"
    )


def _mark(point: FrontierPoint, best: FrontierPoint | None) -> str:
    mark = ">" if point is best else "*" if point.pareto else "?" if point.hearsay else ""
    return mark if point.within_budget else mark + "x"
