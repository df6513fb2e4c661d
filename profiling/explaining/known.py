"""What the shapes say a model is: the towers and language models of the shipped configs, by their layers."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from profiling.explaining.layers import Run

#: Widths of towers -> the letter of their size.
_LETTERS = {768: "B", 1024: "L", 1152: "SO400M", 1280: "H", 1408: "g", 1664: "G"}


class _Tower(NamedTuple):
    name: str
    layers: int
    width: int
    ffn: int
    patch: int
    image: int
    has_cls: bool
    native: bool


class _Decoder(NamedTuple):
    name: str
    layers: int
    width: int
    ffn: int


@lru_cache(maxsize=1)
def _shipped() -> tuple[tuple[_Tower, ...], tuple[_Decoder, ...]]:
    """Return the towers and language models of the shipped configs, each once."""
    from costmodel.models import list_models, load_model

    towers: dict[tuple[object, ...], _Tower] = {}
    decoders: dict[tuple[int, int, int], list[str]] = {}
    for model in list_models():
        found = load_model(model)
        text, vision = found.text, found.vision
        decoders.setdefault((text.num_layers, text.hidden_size, text.intermediate_size), []).append(
            model
        )
        if vision is None:
            continue
        made = _Tower(
            _label(vision.family), vision.num_layers, vision.hidden_size,
            vision.intermediate_size, vision.patch_size, vision.image_size, vision.has_cls, vision.native,
        )  # fmt: skip
        towers.setdefault(made, made)
    named = tuple(
        _Decoder(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""), *sizes)
        for sizes, names in decoders.items()
    )
    return tuple(towers.values()), named


def _label(family: str) -> str:
    """Return what people call a tower, by the registry of those there are."""
    from costmodel.models.towers import TOWERS

    name = next((name for name in TOWERS.names() if name.startswith(family)), None)
    return family if name is None else TOWERS.get(name).label


def describe_run(run: Run) -> str:
    """Return what a stack of layers is, in words: its sizes, and which shipped models have them.

    >>> from profiling.explaining.layers import Run
    >>> describe_run(Run(24, 1024, 577, 1, 4096, False, 6, 0, 1, 1.0, 24))
    '24 layers of 1024, 577 tokens: CLIP-L/336'
    """
    layers = f"{run.count} layer{'s' * (run.count != 1)}"
    if run.count != run.whole:
        layers = f"{run.count} of {run.whole} layers"
    if run.width is None or run.tokens is None:
        return f"{layers} (no sizes were recorded)"
    text = f"{layers} of {run.width}, {run.tokens} token{'s' * (run.tokens != 1)}"
    name = identify(run)
    return f"{text}: {name}" if name else text


def identify(run: Run) -> str | None:
    """Return which shipped tower or language model a stack of layers is; None for none of them.

    A tower that computes one layer less than it has is recognised too.

    Args:
        run: layers from `profiling.explaining.layers`.
    """
    if run.width is None or run.ffn is None:
        return None
    towers, decoders = _shipped()
    fitting = [
        tower
        for tower in towers
        if (tower.width, tower.ffn) == (run.width, run.ffn)
        and tower.layers - 1 <= run.whole <= tower.layers
        and _side(tower, run.tokens or 0)
    ]
    if fitting:
        exact = [each for each in fitting if _side(each, run.tokens or 0) == each.image]
        # A tower that takes any size fits whatever has its width.
        plain = [each for each in fitting if not each.native]
        names = dict.fromkeys(_name(each, run.tokens or 0) for each in exact or plain or fitting)
        return " or ".join(sorted(names))
    for decoder in decoders:
        if (decoder.layers, decoder.width, decoder.ffn) == (run.whole, run.width, run.ffn):
            return f"the language model of {decoder.name}"
    return None


def _side(tower: _Tower, tokens: int) -> int:
    """Return the pixels of the square image that gives a tower its tokens; 0 where none does."""
    if tower.native:
        return tower.patch * math.isqrt(tokens)
    side = math.isqrt(max(tokens - tower.has_cls, 0))
    return side * tower.patch if side * side + tower.has_cls == tokens else 0


def _name(tower: _Tower, tokens: int) -> str:
    if tower.native:
        return f"the tower of {tower.name}"
    letter = _LETTERS.get(tower.width, str(tower.width))
    pixels = _side(tower, tokens)
    if pixels == tower.image:
        return f"{tower.name}-{letter}/{pixels}"
    return f"{tower.name}-{letter}/{tower.patch} at {pixels} pixels"
