"""Scores of one's own evaluations with lmms-eval, as rows that `frontier` prices like published ones.

Read are the files `<date>_results.json` that lmms-eval 0.7.3 writes with `--output_path`: the scores in
`results`, and in `config` how the plug-in `vlm_roofline.lmms` was called, which says method and setting. A
score is compared with that of the unreduced model among the same files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from costmodel.accuracy.rows import Benchmark, Score
from costmodel.models import load_model
from hardware_specs.errors import InvalidFileError, InvalidInputError, UnknownNameError, check_kind
from hardware_specs.files.reading import files_under, is_folder, read_json, show_path
from hardware_specs.showing import shown

#: The name under which the plug-in's model is called in lmms-eval.
PLUGIN = "vlm_roofline"
PAPER = "lmms-eval"


def load_evaluations(
    paths: Iterable[str | Path], model: str, benchmark: str
) -> tuple[Benchmark, list[Score]]:
    """Return the scores of a task in files of lmms-eval, the unreduced model's beside each.

    Args:
        paths: files, or folders that are searched for `*_results.json`.
        model: the name that the cost model has for the checkpoint.
        benchmark: a task, or `task:metric` where it has several.

    Raises:
        InvalidFileError: a file that lmms-eval did not write, or not of the plug-in.
        InvalidInputError: no file, evaluations of two checkpoints, or a metric of which less is better.
        UnknownNameError: no such task, or a task of several metrics of which none is named.
    """
    rows: list[Score] = []
    checkpoints: set[str] = set()
    metrics: set[str] = set()
    task, _, metric = benchmark.partition(":")
    for path in _files(paths):
        document = read_json(path, "record")
        called = _called(document, path)
        checkpoints.add(str(called.get("pretrained")))
        named = _metric(document, path, task, metric)
        metrics.add(named)
        score = document["results"][task][named]
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise InvalidFileError(f"{show_path(path)}: {task} {named} is no number")
        rows.append(_row(called, path, model, benchmark, float(score)))
    if len(checkpoints) > 1 or len(metrics) > 1:
        differ = checkpoints if len(checkpoints) > 1 else metrics
        raise InvalidInputError(
            f"evaluations of {' and '.join(sorted(differ))} are nothing to compare; give those of one"
        )
    baseline = next((row.score for row in rows if row.method == "none"), None)
    scale = max(100.0, *(row.score for row in rows)) if max(r.score for r in rows) > 1 else 1.0
    described = Benchmark(benchmark, f"{metrics.pop()} of lmms-eval", scale)
    return described, [replace(row, baseline=baseline) for row in rows]


def _files(paths: Iterable[str | Path]) -> list[Path]:
    found: list[Path] = []
    if isinstance(paths, (str, PathLike)):
        paths = [paths]
    check_kind("scores", paths, Iterable, "files or folders of results")
    for path in paths:
        found += files_under(path, ("_results.json",)) if is_folder(path) else [Path(path)]
    if not found:
        raise InvalidInputError(
            "there is no *_results.json of lmms-eval; it writes them with --output_path"
        )
    return found


def _called(document: Any, path: Path) -> dict[str, Any]:
    """Return the arguments that the plug-in was called with."""
    try:
        config, _ = document["config"], document["results"].items()
        name, given = config["model"], config["model_args"]
    except (AttributeError, KeyError, TypeError):
        raise InvalidFileError(f"{show_path(path)}: no results of lmms-eval") from None
    if name != PLUGIN:
        raise InvalidFileError(
            f"{show_path(path)}: the model is {name!r}, not {PLUGIN!r}, so that its setting is not known"
        )
    if isinstance(given, dict):
        return given
    return dict(part.split("=", 1) for part in str(given or "").split(",") if "=" in part)


def _metric(document: Any, path: Path, task: str, metric: str) -> str:
    """Return the key of a task's metric, such as `exact_match,none`."""
    tasks = document["results"]
    if task not in tasks:
        raise UnknownNameError(task, tasks, "task")
    keys = [str(key) for key in tasks[task] if "," in key and "_stderr" not in key]
    asked = [key for key in keys if not metric or metric in (key, key.partition(",")[0])]
    if len(asked) != 1:
        raise UnknownNameError(metric or "(none)", [f"{task}:{key}" for key in keys], "metric")
    better = (
        document.get("higher_is_better", {}).get(task, {}).get(asked[0].partition(",")[0], True)
    )
    if better is False:
        raise InvalidInputError(
            f"{show_path(path)}: less is better of {asked[0]}; give another metric"
        )
    return asked[0]


def _row(called: dict[str, Any], path: Path, model: str, benchmark: str, score: float) -> Score:
    method = str(called.get("method") or "none")
    if method != "none" and called.get("variant"):
        method = f"{method}(variant={called['variant']})"
    given, asked = called.get("keep"), called.get("layer")
    label = method if given is None else f"{method} {given}"
    try:
        keep, layer = (
            None if given is None else _number(given),
            None if asked is None else int(asked),
        )
    except (TypeError, ValueError):
        raise InvalidFileError(
            f"{show_path(path)}: keep {shown(given)} or layer {shown(asked)} is no number"
        ) from None
    return Score(
        PAPER, "", path.name, label, load_model(model).name, method, keep, layer,
        "stated", None, None, "none", benchmark, score, None, "E", (), "", "own",
    )  # fmt: skip


def _number(keep: Any) -> int | float:
    """Return a count, or a ratio that may be written in percent."""
    text = str(keep)
    if text.endswith("%"):
        return float(text[:-1]) / 100
    return int(text) if text.isdecimal() else float(text)
