"""Read `data/published.yaml`: tables of scores, checked against a schema, as flat rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError, UnknownNameError
from hardware_specs.files.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SCHEMA_VERSION = 1

#: How a table was read, best first.
EVIDENCE = {
    "T": "read in a text copy of the paper, tables included",
    "N2": "read in two public notes on the paper that agree",
    "N": "read in one public note on the paper",
    "M": "quoted from memory",
}
#: How the cost model's setting of a row is known.
SETTINGS = ("stated", "inferred", "unknown")
#: What was trained before the score was taken.
TRAININGS = ("none", "lora", "full", "calibrated", "unknown")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: its key.
        metric: what a score is; higher is better for all of them.
        most: the upper end of its scale.
    """

    name: str
    metric: str
    most: float


@dataclass(frozen=True, slots=True)
class Source:
    """One document that scores were read in."""

    key: str
    what: str
    url: str
    read: str


@dataclass(frozen=True, slots=True)
class Score:
    """One published score.

    Attributes:
        paper: key of the paper, such as `prumerge`.
        arxiv: its arXiv number.
        table: the table's number.
        label: the row as the paper names it.
        model: a shipped model's name.
        method: a method's name; `none` for the unreduced model.
        keep: the setting of the cost model that is the same run, None for the method's default.
        layer: the language-model layer of methods that have one.
        setting: how `keep` and `layer` are known: `stated`, `inferred` or `unknown`.
        visual_tokens: visual tokens that reach the language model as printed, None where not given.
        flops_ratio: FLOPs against the unreduced model as printed, by the paper's own counting.
        training: `none`, `lora`, `full`, `calibrated` or `unknown`.
        benchmark: the benchmark's key.
        score: the score as printed.
        baseline: the score of the unreduced model in the same paper, None where there is none.
        evidence: a key of `EVIDENCE`.
        sources: keys of the sources it was read in.
        note: what a reader should know.
    """

    paper: str
    arxiv: str
    table: str
    label: str
    model: str
    method: str
    keep: int | float | None
    layer: int | None
    setting: str
    visual_tokens: int | None
    flops_ratio: float | None
    training: str
    benchmark: str
    score: float
    baseline: float | None
    evidence: str
    sources: tuple[str, ...]
    note: str

    @property
    def retained(self) -> float | None:
        """The score over that of the same paper's unreduced model."""
        return None if not self.baseline else self.score / self.baseline


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    text = files("costmodel.accuracy").joinpath("data/published.yaml").read_text("utf-8")
    document: dict[str, Any] = parse_yaml(text)
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InvalidFileError(
            f"published.yaml has schema_version {document.get('schema_version')!r}, "
            f"not {SCHEMA_VERSION}"
        )
    return document


@lru_cache(maxsize=1)
def load_sources() -> dict[str, Source]:
    """Return the documents that scores were read in, by key."""
    return {
        key: Source(key, entry["what"], entry["url"], entry["read"])
        for key, entry in _document()["sources"].items()
    }


@lru_cache(maxsize=1)
def _benchmarks() -> dict[str, Benchmark]:
    return {
        key: Benchmark(key, entry["metric"], float(entry["most"]))
        for key, entry in _document()["benchmarks"].items()
    }


def list_benchmarks(model: str | None = None) -> tuple[str, ...]:
    """Name the benchmarks, or those that have scores of a model.

    >>> list_benchmarks("video-llava-7b")
    ('msvd-qa', 'msrvtt-qa', 'activitynet-qa')
    """
    names = tuple(_benchmarks())
    if model is None:
        return names
    found = {row.benchmark for row in load_scores() if row.model == model}
    return tuple(name for name in names if name in found)


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its key.

    Raises:
        UnknownNameError: there is no such benchmark; names those there are.
    """
    known = _benchmarks()
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(name, known, "benchmark")
    return known[name]


@lru_cache(maxsize=1)
def load_scores() -> tuple[Score, ...]:
    """Return every published score, in the order of the file.

    Raises:
        InvalidFileError: a table that does not hold what it must.

    >>> row = next(row for row in load_scores() if row.label == "DivPrune" and row.benchmark == "pope")
    >>> row.score, row.visual_tokens, row.evidence  # DivPrune Table 1, LLaVA-1.5-7B
    (86.02, 56, 'T')
    """
    document = _document()
    rows = [
        row
        for table in document["tables"]
        for entry in table["rows"]
        for row in _rows(table, entry, document["papers"])
    ]
    baselines: dict[tuple[str, str, str], float] = {}
    for row in rows:
        if row.method == "none":
            baselines.setdefault((row.paper, row.model, row.benchmark), row.score)
    return tuple(
        replace(row, baseline=baselines.get((row.paper, row.model, row.benchmark))) for row in rows
    )


def _rows(
    table: Mapping[str, Any], entry: Mapping[str, Any], papers: Mapping[str, Any]
) -> list[Score]:
    """Spread one row of a table over its columns."""
    where = f"published.yaml, {table['paper']} Table {table['table']}, {entry['label']!r}"
    columns, scores = table["columns"], entry["scores"]
    known = (
        ("evidence", entry.get("evidence", table["evidence"]), EVIDENCE),
        ("setting", entry["setting"], SETTINGS),
        ("training", entry["training"], TRAININGS),
        *(("source", key, load_sources()) for key in table["sources"]),
        *(("benchmark", key, _benchmarks()) for key in columns),
    )
    for what, given, there_is in known:
        if given not in there_is:
            raise InvalidFileError(f"{where}: {what} {given!r} is none of {', '.join(there_is)}")
    if len(columns) != len(scores):
        raise InvalidFileError(f"{where}: {len(scores)} scores for {len(columns)} columns")
    return [
        Score(
            paper=table["paper"],
            arxiv=papers[table["paper"]]["arxiv"],
            table=table["table"],
            label=entry["label"],
            model=table["model"],
            method=entry["method"],
            keep=entry.get("keep"),
            layer=entry.get("layer"),
            setting=entry["setting"],
            visual_tokens=entry.get("visual_tokens"),
            flops_ratio=entry.get("flops_ratio"),
            training=entry["training"],
            benchmark=benchmark,
            score=float(score),
            baseline=None,
            evidence=entry.get("evidence", table["evidence"]),
            sources=tuple(table["sources"]),
            note=entry.get("note", ""),
        )
        for benchmark, score in zip(columns, scores, strict=True)
        if score is not None
    ]


def scores_frame() -> pd.DataFrame:
    """Return every published score as a DataFrame, one row each, with `retained`."""
    import pandas as pd

    return pd.DataFrame([{**asdict(row), "retained": row.retained} for row in load_scores()])
