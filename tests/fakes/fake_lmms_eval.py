"""What the plug-in meets of lmms-eval 0.7.3: the base class, an evaluation of one task, the file it writes.

Only what was read of that release's interface: arguments as text, six arguments of a request of a simple
model, documents by task and split, results by task and `metric,filter`.
"""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PLUGIN = "vlm_roofline.lmms"


class lmms:
    """The base class of models."""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.task_dict: dict[str, Any] = {}

    @classmethod
    def create_from_arg_string(cls, text: str, more: dict[str, Any]) -> Any:
        given: dict[str, Any] = dict(part.split("=", 1) for part in text.split(","))
        return cls(**given, **{name: value for name, value in more.items() if value is not None})

    @property
    def rank(self) -> int:
        return self._rank


@contextmanager
def installed() -> Iterator[None]:
    """Have the fake in place of lmms-eval."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model")
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = ModuleType(name)
    sys.modules["lmms_eval.api.model"].lmms = lmms  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def model_class(name: str) -> Any:
    """Return a plug-in's model as lmms-eval finds it."""
    models = importlib.import_module(f"{PLUGIN}.models")
    importlib.import_module(f"{PLUGIN}.tasks")
    path = f"{PLUGIN}.models.{name}.{models.AVAILABLE_MODELS[name]}"
    module, _, class_name = path.rpartition(".")
    return getattr(importlib.import_module(module), class_name)


def evaluate(
    name: str, model_args: str, documents: Sequence[dict[str, Any]], folder: Path, **asked: Any
) -> tuple[dict[str, Any], Path]:
    """Evaluate a task of questions with a picture and an answer, and write the results."""
    model = model_class(name).create_from_arg_string(
        model_args, {"batch_size": "1", "max_batch_size": None, "device": "cpu"}
    )
    model.task_dict = {"stub": {"test": documents}}
    requests = [
        SimpleNamespace(
            args=(
                each["question"],
                dict(asked),
                lambda doc: [doc["picture"]],
                number,
                "stub",
                "test",
            )
        )
        for number, each in enumerate(documents)
    ]
    answers = model.generate_until(requests)
    right = [a == each["answer"] for a, each in zip(answers, documents, strict=True)]
    score = sum(right) / len(right)
    results = written(name, model_args, score)
    results["answers"] = answers
    path = folder / f"{len(list(folder.iterdir()))}_results.json"
    path.write_text(json.dumps(results))
    return results, path


def written(name: str, model_args: Any, score: float) -> dict[str, Any]:
    """Return what is written of an evaluation."""
    return {
        "results": {
            "stub": {"alias": "stub", "exact_match,none": score, "exact_match_stderr,none": 0.01}
        },
        "configs": {"stub": {}},
        "higher_is_better": {"stub": {"exact_match": True}},
        "n-samples": {"stub": {"original": 3, "effective": 3}},
        "config": {"model": name, "model_args": model_args, "batch_size": "1"},
        "lmms_eval_version": "0.7.3",
    }
