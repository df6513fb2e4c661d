"""Methods by name: what each one is, and a checked request for one.

Needs no torch, so that asking which methods there are costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidInputError, UnknownMethodError
from token_reduction.catalogue import METHODS, MethodInfo, Place
from token_reduction.keep import check_keep, resolve_keep

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Method", "MethodInfo", "get_method", "list_methods", "method_info"]


@dataclass(frozen=True, slots=True)
class Method:
    """A request for one method with everything it needs to run, checked.

    Attributes:
        name: the method's name.
        keep: count (int), ratio (float) or None where the method decides by itself.
        layer: language-model layer K (from 0) it acts at; None where it acts elsewhere.
        variant: "program" (the authors' code), "paper", or another the method has.
        options: every option of the method, defaults filled in.
        place: "after-vision", "after-projector", "llm-layer" or "vision-layers".
        source: paper and program.
        summary: one line.
        needs: what it must be given beside the tokens, e.g. {"clip_qk"}.
    """

    name: str
    keep: int | float | None
    layer: int | None
    variant: str
    options: Mapping[str, object]
    place: Place
    source: str
    summary: str
    needs: frozenset[str] = field(default_factory=frozenset)

    @property
    def keeps_everything(self) -> bool:
        """Whether the request is for no reduction at all: keep=1.0.

        Some functions still rearrange or merge tokens when they keep all of them (PruMerge adds
        neighbours to each); a model asked to keep everything runs untouched.
        """
        return isinstance(self.keep, float) and self.keep == 1.0

    def count(self, n: int) -> int | None:
        """Tokens `keep` asks for out of `n`, rounded as the method's program does.

        None where the data decide, or where keep does not count tokens (FitPrune's is a share of
        FLOPs).

        >>> get_method("divprune").count(576), get_method("prumerge").count(576)
        (56, None)
        """
        info = METHODS[self.name]
        if self.keep is None or info.rounding is None:
            return None
        return resolve_keep(self.keep, n, rounding=info.rounding)


def list_methods() -> tuple[str, ...]:
    """Every method's name.

    >>> "prumerge+" in list_methods()
    True
    """
    return tuple(METHODS)


def method_info(name: str) -> MethodInfo:
    """What a method is: place, source, defaults, options with their meaning.

    Raises:
        UnknownMethodError: no such method; names near ones.

    >>> method_info("fastv").default_layer
    2
    """
    try:
        return METHODS[name]
    except (KeyError, TypeError):
        raise UnknownMethodError(name, METHODS) from None


def get_method(
    name: str,
    *,
    keep: float | None = None,
    layer: int | None = None,
    variant: str = "program",
    **options: object,
) -> Method:
    """A method by name, with what is asked of it checked and its defaults filled in.

    Args:
        name: one of `list_methods()`.
        keep: tokens kept: a count (int: 1 is one token) or a ratio (float: 1.0 is all of them);
            None is the method's adaptive or published default.
        layer: language-model layer K for the methods that act there; None is the published one.
        variant: "program", or "paper" where the paper differs and is well defined.
        options: the method's own, see `method_info(name).options`.

    Raises:
        UnknownMethodError: no such method; names near ones.
        InvalidInputError: a keep, layer, variant or option the method does not take; says what it
            takes.

    >>> method = get_method("fastv", keep=0.25)
    >>> method.keep, method.layer, method.place
    (0.25, 2, 'llm-layer')
    """
    info = method_info(name)
    if variant not in info.variants:
        raise InvalidInputError(
            f"{name} has no variant {variant!r}; there is: {', '.join(info.variants)}"
        )
    place, checked_layer = _check_layer(info, layer)
    return Method(
        name=name,
        keep=_check_method_keep(info, keep),
        layer=checked_layer,
        variant=variant,
        options=MappingProxyType(_check_options(info, options)),
        place=place,
        source=info.source,
        summary=info.summary,
        needs=info.variant_needs.get(variant, info.needs),
    )


def _check_method_keep(info: MethodInfo, keep: float | None) -> int | float | None:
    if keep is None:
        return info.default_keep
    checked = check_keep(keep)
    if isinstance(checked, float) and checked == 1.0:
        return checked
    if info.keep_kind == "none":
        raise InvalidInputError(
            f"{info.name} takes no keep ({info.keep_meaning}); "
            "1.0 alone is accepted, for the untouched model"
        )
    if info.keep_kind == "ratio" and isinstance(checked, int):
        raise InvalidInputError(
            f"{info.name}'s keep is a ratio in (0, 1], {info.keep_meaning}; given {checked}"
        )
    if info.keep_choices and checked not in info.keep_choices:
        raise InvalidInputError(
            f"{info.name} is defined for keep in "
            f"{', '.join(map(str, info.keep_choices))}; given {checked}"
        )
    return checked


def _check_layer(info: MethodInfo, layer: int | None) -> tuple[Place, int | None]:
    if layer is None:
        return info.place, info.default_layer
    if not info.takes_layer:
        where = "at fixed layers, see its options" if "layers" in info.options else info.place
        raise InvalidInputError(f"{info.name} takes no layer: it acts {where}")
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
        raise InvalidInputError(f"layer={layer!r} must be a language-model layer, counted from 0")
    return "llm-layer", layer


def _check_options(info: MethodInfo, given: Mapping[str, object]) -> dict[str, object]:
    for option in given:
        if option not in info.options:
            there_is = ", ".join(info.options) if info.options else "none"
            raise InvalidInputError(
                f"{info.name} has no option {option!r}; its options: {there_is}"
            )
    chosen: dict[str, object] = {}
    for option, spec in info.options.items():
        value = given.get(option, spec.default)
        try:
            chosen[option] = spec.parse(value)
        except (TypeError, ValueError):
            raise InvalidInputError(
                f"{info.name}'s option {option}={value!r} must be {spec.expects} ({spec.meaning})"
            ) from None
    return chosen
