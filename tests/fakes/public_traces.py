"""Traces that others recorded and published, carried with the tests; `tests/data/traces` says whose."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from profiling import explain

if TYPE_CHECKING:
    from profiling.explaining import Explanation

FOLDER = Path(__file__).parents[1] / "data" / "traces"


#: Name -> file.
TRACES = {path.name.removesuffix(".json.gz"): path for path in sorted(FOLDER.glob("*.gz"))}
#: Without graphs: their ops are in the trace.
EAGER = ("h100_bert_small", "h100_qwen1.5_0.5b", "h100_vit_b16", "mi300x_vit_b16")


@cache
def explained(name: str) -> Explanation:
    """What a trace says, read once for all tests."""
    return explain(TRACES[name])
