"""`frontier`: published accuracy joined with modelled cost, and what is best within a budget.

Each published setting that is known is priced on the device; the points that no other beats in both score
and time are the Pareto front. Where several tables have a setting, its authors' own speaks, else the
median, and the spread over all of them is its error bar. What a single rival's table says is shown, and
never the best. Scores of different papers come from different evaluation programs, so points are ranked by
`retained`, the score over that of the same paper's unreduced model, unless asked otherwise.

>>> answer = frontier("llava-1.5-7b", "nvidia-a100-sxm4-80gb", benchmark="pope", latency_s=0.020)
>>> answer.best.method, answer.best.owner, answer.best.tables
('cdpruner', 'rival', 2)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from costmodel.accuracy.evaluations import load_evaluations
from costmodel.accuracy.published import get_benchmark, list_benchmarks, load_scores
from costmodel.estimates import answer
from costmodel.kinds import check_budget
from costmodel.methods import method_info
from costmodel.request import OUR_DEFAULTS, Request, check_names, names_of
from costmodel.written_tables import WrittenTable
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

    from costmodel.accuracy.rows import Benchmark, Score
    from costmodel.models import ModelConfig
    from hardware_specs import HardwareSpec

SCHEMA_VERSION = 1
#: What points may be ranked by.
RANKS = ("retained", "score")
#: Arguments that a published row sets, and the numbers that it does not.
_BY_ROW = ("visual_tokens", "method", "keep", "layer")
_NUMBERS = tuple(name for name in names_of("number") if name not in _BY_ROW)


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One published result with its cost on the device.

    Attributes:
        label: the row as its paper names it.
        paper: key of the paper.
        table: the table's number.
        method: the method; `none` for the unreduced model.
        keep: its setting, None for the default.
        layer: its layer, for methods that have one.
        visual_tokens: visual tokens that reach the language model, as published.
        training: what was trained before.
        score: the score as printed.
        retained: the score over that of the paper's unreduced model.
        evidence: how the score was read, see `costmodel.accuracy.published.EVIDENCE`.
        setting: how the setting is known.
        flops: modelled FLOPs of the request.
        time_s: modelled time of the request: to the first token, with `output_tokens` to the last.
        time_low_s: lower end.
        time_high_s: upper end.
        peak_memory_bytes: modelled peak memory.
        within_budget: whether time and memory are within what was asked for.
        owner: whose table the score stands in, see `costmodel.accuracy.rows.OWNERS`.
        tables: papers whose tables have this setting.
        retained_low: the lowest `retained` among them.
        retained_high: the highest.
        pareto: whether no other point is at least as good and faster, or better and as fast.
        warnings: what its estimate warns of.
    """

    label: str
    paper: str
    table: str
    method: str
    keep: int | float | None
    layer: int | None
    visual_tokens: int | None
    training: str
    score: float
    retained: float | None
    evidence: str
    setting: str
    flops: float
    time_s: float
    time_low_s: float
    time_high_s: float
    peak_memory_bytes: float
    within_budget: bool
    owner: str
    tables: int
    retained_low: float | None
    retained_high: float | None
    pareto: bool = False
    warnings: tuple[str, ...] = ()

    __repr__ = brief

    @property
    def hearsay(self) -> bool:
        """Whether no table but one that is not the method's authors' has this score."""
        return self.tables == 1 and self.owner in ("rival", "benchmark")


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A published row that carries a score but cannot be priced, with the reason."""

    label: str
    method: str
    score: float
    reason: str


@dataclass(frozen=True)
class Frontier:
    """Published accuracy of one model on one benchmark, with cost on one device.

    Attributes:
        model: the model's name.
        hardware: the device's id.
        benchmark: the benchmark.
        rank: what points are ranked by, `retained` or `score`.
        latency_s: the time budget, or None.
        memory_bytes: the memory budget: what was given, else the device's memory; None where neither.
        points: priced points, fastest first.
        unpriced: rows that could not be priced, with the reason.
        fixed: the other arguments of the estimates.
    """

    model: str
    hardware: str
    benchmark: Benchmark
    rank: str
    latency_s: float | None
    memory_bytes: float | None
    points: tuple[FrontierPoint, ...]
    unpriced: tuple[Unpriced, ...]
    fixed: dict[str, Any]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the estimates of all points warn of, one sentence each."""
        told = dict.fromkeys(text for point in self.points for text in point.warnings)
        return tuple(text for text in told if all(text in point.warnings for point in self.points))

    @property
    def best(self) -> FrontierPoint | None:
        """The best point within the budget (the faster of equals), hearsay left out, or None."""
        inside = [p for p in self.points if p.within_budget and not p.hearsay]
        return max(
            inside, key=lambda point: (_worth(point, self.rank), -point.time_s), default=None
        )

    def __repr__(self) -> str:
        """Say what was asked, and what is best; all points would fill a page."""
        best = self.best
        found = (
            "nothing fits" if best is None else f"best {best.label} in {best.time_s * 1e3:.2f} ms"
        )
        return (
            f"<Frontier of {self.model} on {self.hardware}, {self.benchmark.name}: "
            f"{len(self.points)} points, {found}>"
        )

    def _repr_html_(self) -> str:
        rows = tuple(
            (
                point.method,
                point.label,
                "" if point.visual_tokens is None else str(point.visual_tokens),
                f"{point.score:g}",
                f"{point.time_s * 1e3:.2f}",
                f"{point.peak_memory_bytes / 1e9:.2f}",
                "yes" if point.pareto else "",
            )
            for point in self.points
        )
        headings = ("method", "as printed", "tokens", "score", "time ms", "memory GB", "front")
        return WrittenTable(repr(self)[1:-1], headings, rows).html()

    def to_frame(self) -> pd.DataFrame:
        """Return the points as a DataFrame, fastest first."""
        import pandas as pd

        return pd.DataFrame([asdict(point) for point in self.points])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `--json`, `schema_version` 1."""
        best = self.best
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "hardware": self.hardware,
            "benchmark": asdict(self.benchmark),
            "rank": self.rank,
            "latency_s": self.latency_s,
            "memory_bytes": self.memory_bytes,
            "inputs": dict(self.fixed),
            "best": None if best is None else asdict(best),
            "points": [asdict(point) for point in self.points],
            "unpriced": [asdict(row) for row in self.unpriced],
            "warnings": list(self.warnings),
        }


def _worth(point: FrontierPoint, rank: str) -> float:
    value = point.retained if rank == "retained" else point.score
    return float("-inf") if value is None else value


def frontier(
    model: str | ModelConfig,
    hardware: str | Path | HardwareSpec,
    *,
    benchmark: str,
    latency_s: float | None = None,
    memory_bytes: float | None = None,
    rank: str = "retained",
    training_free: bool = False,
    scores: str | Path | Sequence[str | Path] = (),
    **arguments: Any,
) -> Frontier:
    """Say which method and token count is best on a benchmark within a budget on a device.

    Args:
        model: a shipped model that has published scores, or the model of `scores`.
        hardware: a device id, a YAML file, or a `HardwareSpec`.
        benchmark: a benchmark, see `costmodel.accuracy.list_benchmarks`; of `scores` a task, or
            `task:metric`.
        latency_s: budget for the request's time: to the first token, or with `output_tokens` to the
            last.
        memory_bytes: budget for the peak memory; None is the device's own, less the margin that
            `estimate` takes for what is not the program's.
        rank: `retained` compares each score with its own paper's unreduced model, `score` takes it
            as printed.
        training_free: leave out what needed training or calibration.
        scores: results of lmms-eval, a file or folder or several, in place of published scores; see
            `costmodel.accuracy.evaluations`.
        arguments: any other argument of `estimate` but those that a published row sets
            (`visual_tokens`, `method`, `keep`, `layer`) and `convention`.

    Raises:
        InvalidInputError: a budget that is none, a model or benchmark without scores; says which
            have some.
        UnknownNameError: no such benchmark.
    """
    if rank not in RANKS:
        raise InvalidInputError(f"rank={rank!r} is unknown; there is: {', '.join(RANKS)}")
    check_budget("latency_s", latency_s)
    check_budget("memory_bytes", memory_bytes)
    check_names(arguments, *_BY_ROW, "convention", by="frontier")
    request = Request(model, hardware, **arguments)
    bench, name, rows = _rows_of(model, benchmark, scores)
    device = get_hardware(hardware)
    capacity = device.usable_memory_bytes if memory_bytes is None else memory_bytes
    points: list[FrontierPoint] = []
    unpriced: list[Unpriced] = []
    for settings in rows:
        row = _speaker(settings)
        if training_free and row.training != "none":
            continue
        if row.setting == "unknown":
            reason = f"its setting is not given{': ' + row.note if row.note else ''}"
            unpriced.append(Unpriced(row.label, row.method, row.score, reason))
            continue
        try:
            points.append(_point(row, settings, request, latency_s, memory_bytes))
        except VlmRooflineError as error:
            if row.method == "none":
                # What breaks the unreduced model (precision, calibration) breaks every row.
                raise
            unpriced.append(Unpriced(row.label, row.method, row.score, str(error)))
    points.sort(key=lambda point: (point.time_s, -_worth(point, rank)))
    return Frontier(
        name, device.id, bench, rank, latency_s, capacity,
        tuple(_marked(points, rank)), tuple(unpriced),
        {**{number: OUR_DEFAULTS[number] for number in _NUMBERS}, **arguments},
    )  # fmt: skip


def _rows_of(
    model: str | ModelConfig, benchmark: str, scores: str | Path | Sequence[str | Path]
) -> tuple[Benchmark, str, list[list[Score]]]:
    """Return the benchmark, the model's name, and the rows by their setting."""
    from costmodel.models import load_model

    name = load_model(model).name
    if isinstance(scores, (str, PathLike)):
        scores = [scores]
    if scores:
        bench, rows = load_evaluations(scores, name, benchmark)
        return bench, name, _by_setting(rows)
    bench = get_benchmark(benchmark)
    every = [row for row in load_scores() if row.model == name]
    if not every:
        models = sorted({row.model for row in load_scores()})
        raise InvalidInputError(f"no published scores of {name}; there are of: {', '.join(models)}")
    rows = [row for row in every if row.benchmark == benchmark]
    if not rows:
        raise InvalidInputError(
            f"no published scores of {name} on {benchmark}; "
            f"there are on: {', '.join(list_benchmarks(name))}"
        )
    return bench, name, _by_setting(rows)


def _by_setting(rows: list[Score]) -> list[list[Score]]:
    by_setting: dict[Any, list[Score]] = {}
    for row in rows:
        key: Any = (row.method, row.keep, row.layer, row.training)
        if row.method == "none":
            key = "none"
        elif row.setting == "unknown":
            key = (row.paper, *key, row.visual_tokens, row.score)
        by_setting.setdefault(key, []).append(row)
    return list(by_setting.values())


def _speaker(rows: list[Score]) -> Score:
    """Return the row that speaks for a setting: of the authors' own table, else the median of the others."""
    own = [row for row in rows if row.owner in ("own", "baseline")]
    if own:
        return own[0]
    return sorted(rows, key=lambda row: row.retained or 0)[len(rows) // 2]


def _point(
    row: Score,
    rows: list[Score],
    request: Request,
    latency_s: float | None,
    memory_bytes: float | None,
) -> FrontierPoint:
    settings: dict[str, Any] = {"visual_tokens": _visual_tokens(row), "layer": row.layer}
    if row.method != "none":
        if method_info(row.method).clips and request.frames is None:
            raise InvalidInputError(f"{row.method} is a method for clips; give frames=")
        settings |= {"method": row.method, "keep": row.keep}
    cost = answer(replace(request, **settings))
    totals, peak = cost.totals, cost.memory.peak_memory_bytes
    spread = [each.retained for each in rows if each.retained is not None]
    fits = cost.memory.fits is not False if memory_bytes is None else bool(peak <= memory_bytes)
    return FrontierPoint(
        row.label, row.paper, row.table, row.method, row.keep, row.layer, row.visual_tokens,
        row.training, row.score, row.retained, row.evidence, row.setting,
        float(totals.flops), float(totals.time_s), float(totals.time_low_s),
        float(totals.time_high_s), float(peak),
        fits and (latency_s is None or bool(totals.time_s <= latency_s)),
        row.owner, len({each.paper for each in rows}),
        min(spread, default=None), max(spread, default=None),
        warnings=cost.warnings,
    )  # fmt: skip


def _visual_tokens(row: Score) -> int | None:
    """Visual tokens before the reduction: those of the paper's unreduced model."""
    for other in load_scores():
        if other.method == "none" and (other.paper, other.model) == (row.paper, row.model):
            return other.visual_tokens
    return None


def _marked(points: list[FrontierPoint], rank: str) -> list[FrontierPoint]:
    """Mark the Pareto front of points sorted by time, the better of equals first."""
    best = float("-inf")
    marked = []
    for point in points:
        worth = float("-inf") if point.hearsay else _worth(point, rank)
        marked.append(replace(point, pareto=worth > best))
        best = max(best, worth)
    return marked
