"""Nobody but a family's or plan's own file compares, matches or looks up its name: facts are asked."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from costmodel.models.decoders import DECODERS
from costmodel.models.families import get_family, list_families
from costmodel.models.towers import TOWERS
from costmodel.plans import list_plans
from profiling.records.measurement import MODES

ROOT = Path(__file__).parents[2]
PACKAGES = ("costmodel", "token_reduction", "profiling", "vlm_roofline")
#: Where names are at home: a part's own file, and the registry beside it. A family's file says which
#: tower and decoder it has where a config does not; one file says which plan a mode of ours is.
HOMES = ("costmodel/models/families/", "costmodel/models/towers/", "costmodel/models/decoders/",
         "costmodel/plans/", "profiling/subject/plans.py")  # fmt: skip
#: A kernel's family is another word.
ELSEWHERE = ("costmodel/calibration/",)

FAMILIES = {word for name in list_families() for word in (name, name.replace("_", "-"))}
CLASSES = {name for family in map(get_family, list_families()) for name in family.classes}
NAMES = {*FAMILIES, *CLASSES, *DECODERS.names(), *TOWERS.names(), *list_plans(), "clip", "siglip"}
#: Arguments and attributes that carry such a name.
CARRIERS = {"execution", "model_type", "plan_name", "tower_execution"}


def _carries(node: ast.AST) -> bool:
    """Whether an expression is such an argument or attribute, or a call on one."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and _carries(node.func.value)
    if isinstance(node, ast.Attribute):
        return node.attr in CARRIERS
    return isinstance(node, ast.Name) and node.id in CARRIERS


def _requests(tree: ast.AST) -> set[int]:
    """Constants that ask for a plan and decide nothing: defaults, keyword arguments, `"execution": x`."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            found.update(id(d) for d in (*node.defaults, *node.kw_defaults) if d is not None)
        elif isinstance(node, (ast.AnnAssign, ast.keyword)):
            # A field's default, or an argument of a call.
            name = node.arg if isinstance(node, ast.keyword) else getattr(node.target, "id", "")
            found.update({id(node.value)} if name in CARRIERS else ())
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in CARRIERS:
                    found.add(id(value))
    return found


def offences(source: str, names: set[str]) -> list[str]:
    """Where a source decides by a name: `line: what`."""
    tree = ast.parse(source)
    allowed = _requests(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in names and id(node) not in allowed:
            found.append(f"{node.lineno}: {node.value!r}")
        elif isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            absent = any(isinstance(s, ast.Constant) and s.value is None for s in sides)
            if any(map(_carries, sides)) and not absent:
                found.append(f"{node.lineno}: compares")
        elif isinstance(node, ast.Subscript) and _carries(node.slice):
            found.append(f"{node.lineno}: looks up")
        elif isinstance(node, ast.Match) and _carries(node.subject):
            found.append(f"{node.lineno}: matches")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = ("startswith", "endswith", "removeprefix", "removesuffix", "partition", "split")
            looks_up = node.func.attr == "get" and any(map(_carries, node.args))
            if looks_up or (node.func.attr in words and _carries(node.func.value)):
                found.append(f"{node.lineno}: {node.func.attr}")
    return found


def test_nothing_decides_by_a_name() -> None:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            if where.startswith((*HOMES, *ELSEWHERE)):
                continue
            # Our modes of running have names of their own, one of which a plan has, too.
            ours = package in ("profiling", "vlm_roofline")
            names = NAMES - set(MODES) if ours else NAMES
            source = path.read_text(encoding="utf-8")
            found += [f"{where}:{offence}" for offence in offences(source, names)]
    assert not found, "\n".join(found)


def test_a_part_knows_no_other_by_name() -> None:
    """Inside the homes a plan's file does not decide by another plan's name, a family's by another's."""
    for folder, names in (("models/families", FAMILIES), ("plans", set(list_plans()))):
        for path in (ROOT / "costmodel" / folder).glob("*.py"):
            if path.stem == "__init__":
                continue
            others = {n for n in names if n.replace("-", "_") != path.stem}
            assert not offences(path.read_text(encoding="utf-8"), others), path


@pytest.mark.parametrize(
    "planted",
    [
        'if model.model_type == "video_llava": pass',
        '_VIDEO = frozenset({"video_llava", "llava_next_video"})\nmodel.model_type in _VIDEO',
        'eager = execution != "fused"',
        "if execution == TOWER_PLAN: pass",
        "if configuration.execution in PLANS: pass",
        'LABELS = {"hf-eager": "eager PyTorch"}',
        "label = LABELS[execution]",
        "label = LABELS.get(execution, 1)",
        'match execution:\n    case "fused": pass',
        "match model.model_type:\n    case x: pass",
        'pooled = parts.family == "llava-onevision"',
        'KINDS = {"LlavaForConditionalGeneration": 1}',
        'if tower.family == "clip": pass',
        'if model_type.startswith("llava"): pass',
        'if "siglip_vision_model" in document: pass',
        'plan = get_plan("fused")',
        'TOWER: str = "hf-eager"',
    ],
)
def test_a_planted_offence_is_found(planted: str) -> None:
    assert offences(planted, NAMES)


@pytest.mark.parametrize(
    "innocent",
    [
        'def f(execution: str = "fused"): pass',
        'estimate(model, hardware, execution="hf-eager")',
        'DEFAULTS = {"execution": "fused"}',
        'class Request:\n    execution: str = "fused"',
        '"""The plan fused is the default."""',
        "if tower_execution is not None: pass",
        "plan = get_plan(execution)",
        "if plan.runs_pytorch: pass",
    ],
)
def test_a_request_is_no_offence(innocent: str) -> None:
    assert not offences(innocent, NAMES)
