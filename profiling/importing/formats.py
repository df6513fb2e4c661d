"""The formats of other tools' results: which there are, and which one a file has."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costmodel.registry import Registry
from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiling.importing.content import Content
    from profiling.importing.foreign import ForeignRun


class Format(NamedTuple):
    """One tool's results.

    Attributes:
        label: the tool and its file, in words.
        tested: what real file the reader was tested on, or that there was none.
        recognises: whether a file's content is of this format.
        runs: the runs in it.
    """

    label: str
    tested: str
    recognises: Callable[[Content], bool]
    runs: Callable[[Content], Iterator[ForeignRun]]


FORMATS: Registry[Format] = Registry(
    "format of results",
    {
        "vllm-serve": "profiling.importing.vllm_serve",
        "vllm-latency": "profiling.importing.vllm_latency",
        "optimum-benchmark": "profiling.importing.optimum_benchmark",
        "optimum-benchmark-table": "profiling.importing.optimum_table",
        "lmms-eval": "profiling.importing.lmms_eval",
        "edge-llm": "profiling.importing.edge_llm",
    },
    attribute="FORMAT",
)


def format_of(content: Content, source: str) -> tuple[str, Format]:
    """Return the name and the reader of a file's format.

    Raises:
        InvalidFileError: no reader knows it; lists those there are.
    """
    for name in FORMATS.names():
        found = FORMATS.get(name)
        if found.recognises(content):
            return name, found
    known = "; ".join(FORMATS.get(name).label for name in FORMATS.names())
    raise InvalidFileError(f"{source}: results of no tool that is known; there is: {known}")
