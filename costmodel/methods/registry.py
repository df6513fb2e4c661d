"""The registry of methods: one line each, and a door for methods from outside the repository.

A line names the module that the method shares between two packages: `costmodel.methods.<module>` holds what
it is, its token schedule and its price, `token_reduction.<module>` its function and its plug. A module is
imported when one of its methods is asked for. Methods from outside come in by `register_method`, or by an
entry point of the group `vlm_roofline.methods`, whose name is the method's.
"""

from __future__ import annotations

import re
from copyreg import pickle
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.methods.info import MethodInfo
from costmodel.methods.method import Method, ask
from costmodel.methods.spelling import agreed, read_spelling
from costmodel.methods.stack import split_stack, stack
from hardware_specs.errors import InvalidInputError, UnknownMethodError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint
    from types import ModuleType

#: What a method may be called.
_NAME = re.compile(r"\w[\w.+-]*")
#: method -> its module, in both packages.
MODULES: dict[str, str] = {
    "prumerge": "prumerge",
    "prumerge+": "prumerge",
    "divprune": "divprune",
    "fastv": "fastv",
    "vtw": "vtw",
    "fitprune": "fitprune",
    "tome": "tome",
    "ats": "ats",
    "evit": "evit",
    "crossget": "crossget",
    "sequential": "sampling",
    "spatial": "sampling",
    "m3": "m3",
    "visionzip": "visionzip",
    "fastervlm": "fastervlm",
    "vispruner": "vispruner",
    "cdpruner": "cdpruner",
    "hired": "hired",
    "pyramiddrop": "pyramiddrop",
    "dart": "dart",
    "sparsevlm": "sparsevlm",
    "random": "sampling",
    "evs": "evs",
    "vidcom2": "vidcom2",
    "holov": "holov",
    "hiprune": "hiprune",
    "v2drop": "v2drop",
    "dycoke": "dycoke",
    "downsample": "downsample",
    "vscan": "vscan",
    "fastvid": "fastvid",
    "pixelprune": "pixelprune",
    "holitom": "holitom",
}
ENTRY_POINTS = "vlm_roofline.methods"


class Outside(NamedTuple):
    """A method from outside the repository.

    Attributes:
        info: what it is.
        plug: puts it into a model, or the dotted name of a module whose `plug` does; None for a
            method that can be priced and not run.
    """

    info: MethodInfo
    plug: Callable[[Any], None] | str | None


_outside: dict[str, Outside] = {}


def register_method(
    source: MethodInfo | ModuleType, *, plug: Callable[[Any], None] | str | None = None
) -> None:
    """Add a method from outside the repository, under the name its info has.

    Args:
        source: a `MethodInfo`, or a module that holds one as `INFO` (or several as `INFOS`) and, where
            the method can run, `plug` or the name of the module that has it as `PLUG`.
        plug: a function that puts the method into a model (see `token_reduction.apply.places`), or the
            dotted name of a module that has one called `plug`; None for a method that is only priced.

    Raises:
        InvalidInputError: no method's info, or a name that is taken or cannot be one.

    >>> register_method("fastv")
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: register_method takes a MethodInfo or a module that holds one \
    as INFO, not 'fastv'
    """
    described = _described(source, plug)
    if not described:
        raise InvalidInputError(
            "register_method takes a MethodInfo or a module that holds one as INFO, not "
            f"{getattr(source, '__name__', repr(source))}"
        )
    taken = {name.lower(): name for name in list_methods()}
    for name in described:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() == "none":
            raise InvalidInputError(
                f"a method cannot be called {shown(name)}: letters, digits and . _ + - make a name, brackets "
                "hold settings, / stacks, and 'none' is none"
            )
        if name.lower() in taken:
            raise InvalidInputError(
                f"there is a method called {taken[name.lower()]!r} already, and case makes no difference; "
                "register yours under another name"
            )
        taken[name.lower()] = name
    _outside.update(described)


def _described(source: object, plug: Any = None) -> dict[str, Outside]:
    """What a method's info, or a module with some, brings: by name."""
    infos = (source,) if isinstance(source, MethodInfo) else infos_of(source)
    plug = plug or getattr(source, "plug", None) or getattr(source, "PLUG", None)
    return {info.name: Outside(info, plug) for info in infos}


def infos_of(module: object) -> tuple[MethodInfo, ...]:
    """Return what a module says about its methods: its `INFO`, or several `INFOS`."""
    one = getattr(module, "INFO", None)
    return tuple(getattr(module, "INFOS", ())) if one is None else (one,)


@cache
def _installed() -> dict[str, EntryPoint]:
    """Methods that installed distributions bring; one that takes a shipped name stays unseen."""
    # The import takes longer than everything else here, and shipped names do without.
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in found if point.name not in MODULES}


def list_methods() -> tuple[str, ...]:
    """Name every method: those shipped, those installed, those registered.

    >>> "prumerge+" in list_methods()
    True
    """
    return tuple(dict.fromkeys((*MODULES, *_installed(), *_outside)))


def _as_registered(name: str) -> str:
    """Return a method's name as its registry has it: case makes no difference.

    >>> _as_registered("DivPrune"), _as_registered("nothing")
    ('divprune', 'nothing')
    """
    if not isinstance(name, str):
        raise UnknownMethodError(name, list_methods())
    if name in MODULES:
        return name
    return {known.lower(): known for known in list_methods()}.get(name.lower(), name)


def outside(name: str) -> Outside | None:
    """Return a method from outside the repository, or None where `name` is a shipped one's.

    Raises:
        UnknownMethodError: no such method; names near ones.
        InvalidInputError: an entry point that brings no method of its name.
    """
    if name in MODULES:
        return None
    if name not in _outside and name in _installed():
        _load(_installed()[name])
    if name in _outside:
        return _outside[name]
    raise UnknownMethodError(name, list_methods())


def _load(point: EntryPoint) -> None:
    brought = _described(point.load())
    if point.name not in brought:
        raise InvalidInputError(
            f"the entry point {point.name} = {point.value} of the group {ENTRY_POINTS} brings no "
            f"method called {point.name!r}; name it after its MethodInfo"
        )
    _outside[point.name] = brought[point.name]


def method_info(name: str) -> MethodInfo:
    """Return what a method is: place, source, defaults, options with their meaning.

    Raises:
        UnknownMethodError: no such method; names near ones.

    >>> method_info("fastv").default_layer
    2
    """
    name = _as_registered(name)
    found = outside(name)
    if found is not None:
        return found.info
    module = import_module(f"costmodel.methods.{MODULES[name]}")
    return next(info for info in infos_of(module) if info.name == name)


def get_method(
    name: str,
    *,
    keep: float | None = None,
    layer: int | None = None,
    variant: str = "program",
    **options: object,
) -> Method:
    """Return a method by name, with what is asked of it checked.

    Args:
        name: one of `list_methods()`, a line such as `tome(r=8)` with settings in it, or two with `/`
            between them, one before the language model and one inside it.
        keep: tokens kept: a count (int: 1 is one token) or a ratio (float: 1.0 is all of them);
            None is the method's adaptive or published default.
        layer: language-model layer K for the methods that act there; None is the published one.
        variant: "program", or "paper" where the paper differs and is well defined.
        options: the method's own, see `method_info(name).options`.

    Raises:
        UnknownMethodError: no such method; names near ones.
        InvalidInputError: a keep, layer, variant or option the method does not take; says what it
            takes. A setting given twice.

    >>> method = get_method("fastv", keep=0.25)
    >>> method.keep, method.layer, method.place
    (0.25, 2, 'llm-layer')
    >>> get_method("evit(keep=0.5, layers=[2,5])").options["layers"]
    (2, 5)
    """
    if not isinstance(name, str):
        raise UnknownMethodError(name, list_methods())
    if len(split_stack(name)) > 1:
        given = {"keep": keep, "layer": layer, **options}
        also = ", ".join(key for key, value in given.items() if value is not None)
        if also or variant != "program":
            raise InvalidInputError(
                f"{also or 'variant'} was given beside {name}; each of two methods has "
                "its settings in brackets: divprune(keep=144)/fastv(keep=0.5)"
            )
        return _stacked(name)
    name, written = read_spelling(name)
    name = _as_registered(name)
    asked: dict[str, Any] = {"keep": keep, "layer": layer, "variant": variant, **options}
    for key, value in written.items():
        beside = asked.get(key)
        asked[key] = value if key == "variant" else agreed(name, key, value, beside)
    keep, layer, variant = (asked.pop(key) for key in ("keep", "layer", "variant"))
    return ask(method_info(name), keep=keep, layer=layer, variant=variant, options=asked)


@lru_cache(maxsize=64)
def _stacked(line: str) -> Method:
    """Return the methods of a line as one request: the same for the same line."""
    return stack([get_method(each) for each in split_stack(line)])


def _rebuilt(method: Method) -> tuple[Any, tuple[str]]:
    return get_method, (str(method),)


# From its line: parsers of options cannot be pickled.
pickle(Method, _rebuilt)
