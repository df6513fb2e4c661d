"""A checked request for one method: its info with the keep, layer, variant and options asked for.

Needs no torch: running a method is `token_reduction`'s part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from costmodel.methods.fits import check_takes, checked_plan, refused_layer
from costmodel.methods.keep import check_keep, resolve_keep
from costmodel.methods.plan import MethodInput, MethodPlan
from costmodel.methods.spelling import spell
from hardware_specs.errors import InvalidInputError, UnknownNameError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.methods.info import MethodInfo, Place
    from costmodel.models import ModelConfig
    from costmodel.models.geometry import Part, Seen
    from costmodel.precision import Precision
    from costmodel.quantities import Num


@dataclass(frozen=True, slots=True)
class Method:
    """A request for one method, checked by `get_method`.

    Attributes:
        info: what the method is.
        given_keep: the keep asked for; None is the method's default.
        given_layer: the language-model layer asked for; None is the method's default.
        variant: "program" (the authors' code), "paper", or another the method has.
        options: every option of the method, defaults filled in.
    """

    info: MethodInfo
    given_keep: int | float | None
    given_layer: int | None
    variant: str
    options: Mapping[str, object] = field(hash=False)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.info.name

    @property
    def keep(self) -> int | float | None:
        """Count (int), ratio (float), or None where the method decides by itself."""
        return self.info.default_keep if self.given_keep is None else self.given_keep

    @property
    def settled_keep(self) -> int | float:
        """The keep of a method that does not decide by itself.

        Raises:
            InvalidInputError: none was given, and the method has no default.
        """
        if self.keep is None:
            raise InvalidInputError(f"{self.name} has no default keep; give keep=")
        return self.keep

    @property
    def layer(self) -> int | None:
        """Language-model layer K (from 0) the method acts at; None where it acts elsewhere."""
        return self.info.default_layer if self.given_layer is None else self.given_layer

    @property
    def place(self) -> Place:
        """Where the method acts: its own place, or the layer that was asked for."""
        return self.info.place if self.given_layer is None else "llm-layer"

    def plan(
        self,
        model: ModelConfig,
        precision: Precision,
        visual_tokens: Num,
        projected_tokens: Num,
        crops: Num,
        text_tokens: Num,
        batch_size: Num,
        vision_layers: int,
        *,
        images: Num | None = None,
        keep: Any = None,
        layer: int | None = None,
        unit_tokens: Num = 0,
        framed: bool = False,
        seen: Seen | None = None,
        parts: tuple[Part, ...] = (),
    ) -> MethodPlan:
        """Return the token schedule and the method's own ops for one scenario, or arrays of them.

        The arguments are those of `MethodInput`; `keep` and `layer` replace the method's own. Without
        `images` there is one per crop where the model cuts no tiles and takes no frames, else one.

        Raises:
            InvalidInputError: a keep or layer the method does not take, visual tokens it cannot start from.
            UnsupportedError: a model the method does not fit; says why.
        """
        if images is None:
            images = crops if model.anyres is None and model.video is None else 1
        keep = self.given_keep if keep is None else keep
        layer = self.given_layer if layer is None else layer
        given = MethodInput(
            model, precision, visual_tokens, projected_tokens, crops, text_tokens, batch_size,
            vision_layers, keep, layer, self.variant, self.options, unit_tokens, images, framed,
            seen, parts,
        )  # fmt: skip
        return checked_plan(self.info, given)

    @property
    def changed_options(self) -> dict[str, object]:
        """The options that are not their defaults."""
        chosen = ((option, self.options[option.name]) for option in self.info.options)
        return {option.name: value for option, value in chosen if value != option.default}

    @property
    def said_by_options(self) -> bool:
        """Whether an option says how many tokens are left, in the place of `keep`."""
        return any(
            option.for_keep and self.options[option.name] != option.default
            for option in self.info.options
        )

    @property
    def changes(self) -> dict[str, Any]:
        """What an answer's inputs say of a method beside its name, where it is not the default.

        >>> from costmodel.methods import get_method
        >>> get_method("tome", r=8, proportional=True).changes
        {'method_options': {'r': 8}}
        """
        said = {
            "method_variant": self._settings.get("variant"),
            "method_options": self.changed_options,
        }
        return {key: value for key, value in said.items() if value}

    @property
    def _settings(self) -> dict[str, object]:
        """Variant and options that are not the defaults."""
        variant = {} if self.variant == self.info.variants[0] else {"variant": self.variant}
        return {**variant, **self.changed_options}

    @property
    def label(self) -> str:
        """Name, variant and options as one line, keep and layer left to columns of their own.

        >>> from costmodel.methods import get_method
        >>> get_method("fastv", keep=0.25, variant="paper").label
        'fastv(variant=paper)'
        """
        return spell(self.name, self._settings)

    def __repr__(self) -> str:
        """Name the method with what differs from its defaults."""
        return f"<Method {self}>"

    def __str__(self) -> str:
        """Return the whole request as one line, which `get_method` reads again."""
        asked = {"keep": self.given_keep, "layer": self.given_layer}
        given = {key: value for key, value in asked.items() if value is not None}
        return spell(self.name, {**given, **self._settings})

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

        >>> from costmodel.methods import get_method
        >>> get_method("divprune").count(576), get_method("prumerge").count(576)
        (56, None)
        """
        if self.keep is None or self.info.rounding is None:
            return None
        return resolve_keep(self.keep, n, rounding=self.info.rounding)


def ask(
    info: MethodInfo,
    *,
    keep: float | None,
    layer: int | None,
    variant: str,
    options: Mapping[str, object],
) -> Method:
    """Return a method with what is asked of it checked; `get_method` by name calls this.

    Raises:
        InvalidInputError: a keep, layer, variant or option the method does not take; says what it
            takes.
    """
    if variant not in info.variants:
        raise InvalidInputError(
            str(UnknownNameError(variant, info.variants, f"variant of {info.name}"))
        )
    info = info.forms.get(variant, info)
    keep = None if keep is None else check_keep(keep)
    layer = _checked_layer(info, layer, variant)
    chosen = _checked_options(info, options)
    check_takes(info, keep, chosen)
    for name, value in chosen.items():
        info = info.forms.get(f"{name}={value}", info)
    return Method(info, keep, layer, variant, MappingProxyType(chosen))


def _checked_layer(info: MethodInfo, layer: int | None, variant: str) -> int | None:
    if layer is None:
        return None
    if not info.takes_layer:
        raise refused_layer(info, variant, layer)
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
        raise InvalidInputError(
            f"layer={shown(layer)} must be a language-model layer, counted from 0"
        )
    return layer


def _checked_options(info: MethodInfo, given: Mapping[str, object]) -> dict[str, object]:
    known = {option.name: option for option in info.options}
    for name in given:
        if name not in known:
            if not known:
                raise InvalidInputError(f"{info.name} has no options, and {name!r} was given")
            raise InvalidInputError(str(UnknownNameError(name, known, f"option of {info.name}")))
    chosen: dict[str, object] = {}
    for name, option in known.items():
        value = given.get(name, option.default)
        try:
            chosen[name] = option.values.parse(value)
        except (TypeError, ValueError):
            raise InvalidInputError(
                f"{info.name}'s option {name}={shown(value)} must be {option.expects} ({option.meaning})"
            ) from None
    return chosen
