"""`--layer`, `--variant` and `--option`: the settings of a method, put into the text that names it.

A method is text with its settings in brackets (`costmodel.methods.spelling`), and whatever takes a method's
name takes such a text. So these options are one change of the text, the same for every command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.methods.info import MethodInfo

Variant = Annotated[
    str | None, typer.Option(help="The method's variant, such as paper (see `methods show`).")
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the method (see `methods show`); repeatable.",
    ),
]


def with_settings(
    methods: Sequence[str],
    *,
    variant: str | None = None,
    options: Sequence[str] | None = None,
    layer: int | None = None,
) -> list[str]:
    """Return the methods with the settings that each of them takes.

    Raises:
        UnknownMethodError: no such method.
        InvalidInputError: a setting that none of the methods takes, that one has already, or that is not
            NAME=VALUE.

    >>> with_settings(["none", "FastV", "tome"], variant="paper", options=["r=8"])
    ['none', 'fastv(variant=paper)', 'tome(r=8)']
    """
    asked: dict[str, object] = {}
    for text in options or ():
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or name in asked:
            raise InvalidInputError(f"--option {text!r} is not NAME=VALUE, each name once")
        asked[name] = value.strip()
    given = {"layer": layer, "variant": variant}
    asked |= {name: value for name, value in given.items() if value is not None}
    if not asked:
        return list(methods)
    from costmodel.methods import get_method, method_info
    from costmodel.methods.spelling import read_spelling, spell

    read = {method: read_spelling(method) for method in methods if method.lower() != "none"}
    if not read:
        said = [f"--{name}" if name in given else f"--option {name}" for name in asked]
        raise InvalidInputError(f"{', '.join(said)}: no method to set; give --method")
    infos = {method: method_info(name) for method, (name, _) in read.items()}
    taken = {
        method: {name: value for name, value in asked.items() if _takes(info, name, value)}
        for method, info in infos.items()
    }
    # What no method takes is refused by the first, whose message says what it has.
    nobodys = {
        name: asked[name] for name in asked if not any(name in each for each in taken.values())
    }
    taken[next(iter(taken))] |= nobodys
    result = []
    for method in methods:
        name, own = read.get(method, ("none", {}))
        added = taken.get(method, {})
        if twice := own.keys() & added.keys():
            raise InvalidInputError(f"{min(twice)} of {method} is given twice")
        settings = own | added
        result.append(str(get_method(spell(name, settings))) if added else method)
    return result


def _takes(info: MethodInfo, name: str, value: object) -> bool:
    if name == "layer":
        return info.takes_layer
    if name == "variant":
        return value in info.variants
    return any(option.name == name for option in info.options)
