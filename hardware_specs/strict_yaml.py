"""YAML as data only: the safe loader, with duplicate keys refused.

YAML lets a key appear twice and keeps the last, so that a mistyped line silently replaces another:
one public device list lost its FP8 peaks that way. Here it is an error that names the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

#: libyaml parses ten times faster; wheels have it, some source builds do not.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: A device file has some 5 kB; what is a thousand times larger is something else.
MAX_BYTES = 4_000_000

#: Device files nest four deep. libyaml builds nodes by recursion in C, so that some ten thousand
#: open brackets would end the process instead of raising.
MAX_DEPTH = 50


class _StrictLoader(_Base):  # type: ignore[misc]
    """The safe loader, refusing duplicate keys, keys that are no text, and merge keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is no text; put it in quotes", key_node.start_mark
                )
            if key in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def _refuse_tricks(content: bytes | str) -> None:
    """Refuse what no data file needs: extreme nesting, and references that multiply their target."""
    depth = 0
    for event in yaml.parse(content, Loader=_StrictLoader):
        mark: Any = event.start_mark  # the C parser has marks of its own type
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(
                    problem=f"more than {MAX_DEPTH} levels deep", problem_mark=mark
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem=f"the reference *{event.anchor}: write the value out",
                problem_mark=mark,
            )


def read_yaml(path: Path) -> Any:
    """Read one YAML document as plain data.

    Args:
        path: the file to read, UTF-8.

    Returns:
        What the document holds: mappings, lists, text, numbers.

    Raises:
        InvalidFileError: the file cannot be read, is no YAML, or repeats a key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidFileError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise InvalidFileError(f"{path} has more than {MAX_BYTES} bytes: it is no spec file")
    try:
        return parse_yaml(content)
    except InvalidFileError as error:
        raise InvalidFileError(f"{path}: {error}") from None


def parse_yaml(content: bytes | str) -> Any:
    r"""Parse one YAML document as plain data.

    Args:
        content: the document.

    Raises:
        InvalidFileError: it is no YAML, or repeats a key.

    >>> parse_yaml("tdp_w: 400")
    {'tdp_w': 400}
    >>> parse_yaml("tdp_w: 400\ntdp_w: 300")
    Traceback (most recent call last):
        ...
    hardware_specs.errors.InvalidFileError: line 2, column 1: the key 'tdp_w' appears twice
    """
    try:
        _refuse_tricks(content)
        return yaml.load(content, Loader=_StrictLoader)  # noqa: S506 - it is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidFileError(f"{where}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: text that looks like a date or number and is none, such as 2024-13-45.
        raise InvalidFileError(f"no valid YAML: {' '.join(str(error).split())}") from None
