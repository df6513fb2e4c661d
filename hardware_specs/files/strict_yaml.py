"""YAML as data only: the safe loader, with duplicate keys refused.

YAML lets a key appear twice and keeps the last, so that a mistyped line silently replaces another:
one public device list lost its FP8 peaks that way. Here it is an error that names the line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.strict_json import MAX_DEPTH, MAX_DIGITS

if TYPE_CHECKING:
    from collections.abc import Hashable

#: libyaml parses ten times faster; wheels have it, some source builds do not.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of more than {MAX_DIGITS} digits", node.start_mark
            )
        number: int = super().construct_yaml_int(node)
        return number


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


def _refuse_tricks(content: bytes | str) -> None:
    """Refuse extreme nesting, and references that multiply their target: no data file needs them."""
    depth = 0
    for event in yaml.parse(content, Loader=_StrictLoader):
        mark: Any = event.start_mark  # the C parser has marks of its own type
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            # libyaml builds nodes by recursion in C: some ten thousand open brackets would end the
            # process instead of raising.
            if depth > MAX_DEPTH:
                problem = f"more than {MAX_DEPTH} levels deep"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            problem = f"the reference *{event.anchor}: write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def parse_yaml(content: bytes | str) -> Any:
    r"""Parse one YAML document as plain data.

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
        raise InvalidFileError(f"no valid YAML: {' '.join(str(error).split())[:200]}") from None
