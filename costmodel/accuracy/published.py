"""Every published score: the tables of `data/published.yaml`, as flat rows, and those of `collected`."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from costmodel.accuracy.collected import collected_scores, collected_sources
from costmodel.accuracy.rows import EVIDENCE, SETTINGS, TRAININGS, Benchmark, Score, Source
from hardware_specs.errors import InvalidFileError, UnknownNameError
from hardware_specs.files.strict_yaml import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

SCHEMA_VERSION = 1


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
    named = {
        key: Source(key, entry["what"], entry["url"], entry["read"])
        for key, entry in _document()["sources"].items()
    }
    return named | collected_sources()


@lru_cache(maxsize=1)
def _benchmarks() -> dict[str, Benchmark]:
    return {
        key: Benchmark(key, entry["metric"], float(entry["most"]))
        for key, entry in _document()["benchmarks"].items()
    }


def list_benchmarks(model: str | None = None) -> tuple[str, ...]:
    """Name the benchmarks, or those that have scores of a model.

    >>> list_benchmarks("video-llava-7b")
    ('msvd-qa', 'msrvtt-qa', 'activitynet-qa', 'tgif-qa')
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
    """Return every published score, in the order of the files.

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
    named = tuple(
        replace(row, baseline=baselines.get((row.paper, row.model, row.benchmark))) for row in rows
    )
    return named + collected_scores()


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
            owner=_owner(table["paper"], entry["method"]),
        )
        for benchmark, score in zip(columns, scores, strict=True)
        if score is not None
    ]


def _owner(paper: str, method: str) -> str:
    """Whose table a row stands in; the samplers are PruMerge's own baselines."""
    if method == "none":
        return "baseline"
    own = method.rstrip("+") == paper or (
        paper == "prumerge" and method in ("sequential", "spatial")
    )
    return "own" if own else "rival"


def scores_frame() -> pd.DataFrame:
    """Return every published score as a DataFrame, one row each, with `retained`."""
    import pandas as pd

    return pd.DataFrame([{**asdict(row), "retained": row.retained} for row in load_scores()])
