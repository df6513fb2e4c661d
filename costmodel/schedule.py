"""Token schedules: how many tokens each layer sees.

Reduction before the language model, at its layer K, progressively, or inside the vision tower are
one idea: a list of layer spans with their lengths. Lengths may be numbers or arrays over scenarios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costmodel.quantities import whole
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from costmodel.quantities import Num


class LayerSpan(NamedTuple):
    """Consecutive layers that see the same number of tokens.

    In the language model the counts are visual tokens (the text comes on top); in the vision tower
    they are all tokens, the class token included.

    Attributes:
        layers: how many layers.
        tokens: tokens entering each layer: its Q, K, V, its keys and its KV cache.
        out_tokens: tokens through the output projection; None means `tokens`.
        mlp_tokens: tokens through the MLP; None means `out_tokens`.
        query_tokens: rows of the score matrix whose values are summed up; None means `tokens`.
        materialised: whether the method forces these layers to write their attention scores out; an
            array says it of each scenario.
    """

    layers: int
    tokens: Num
    out_tokens: Num | None = None
    mlp_tokens: Num | None = None
    query_tokens: Num | None = None
    materialised: bool | NDArray[Any] = False


def cut_spans(spans: tuple[LayerSpan, ...], first: int, last: int) -> tuple[LayerSpan, ...]:
    """Return the part of a schedule that falls on the layers from `first` to before `last`.

    >>> cut_spans((LayerSpan(2, 576), LayerSpan(30, 64)), 1, 16)
    (LayerSpan(layers=1, tokens=576, ...), LayerSpan(layers=14, tokens=64, ...))
    """
    found, begin = [], 0
    for span in spans:
        end = begin + span.layers
        layers = min(end, last) - max(begin, first)
        if layers > 0:
            found.append(span._replace(layers=layers))
        begin = end
    return tuple(found)


def tokens_by_layer(spans: tuple[LayerSpan, ...]) -> tuple[tuple[int, int], ...]:
    """Return (layers, tokens entering each) of a schedule, equal neighbours together.

    >>> tokens_by_layer((LayerSpan(2, 576), LayerSpan(1, 576), LayerSpan(29, 64.0)))
    ((3, 576), (29, 64))
    """
    found: list[tuple[int, int]] = []
    for span in spans:
        if found and found[-1][1] == span.tokens:
            found[-1] = (found[-1][0] + span.layers, found[-1][1])
        elif span.layers:
            found.append((span.layers, whole(span.tokens)))
    return tuple(found)


def schedule_text(spans: tuple[tuple[int, int], ...]) -> str:
    """Return a schedule as ranges of layers, with its mean.

    >>> schedule_text(((2, 576), (30, 64)))
    '576 in layers 0-1, 64 in layers 2-31; 96 on average'
    """
    first, said = 0, []
    for layers, tokens in spans:
        last = first + layers - 1
        said.append(f"{tokens:g} in layer{f's {first}-{last}' if layers > 1 else f' {first}'}")
        first += layers
    mean = sum(layers * tokens for layers, tokens in spans) / first
    return f"{', '.join(said)}; {mean:.5g} on average"


def check_layers(spans: tuple[LayerSpan, ...], layers: int, what: str) -> None:
    """Raise unless the spans cover exactly `layers` layers.

    >>> check_layers((LayerSpan(2, 576), LayerSpan(30, 288)), 32, "language model")
    """
    covered = sum(span.layers for span in spans)
    if covered != layers:
        raise InvalidInputError(
            f"a token schedule covers {covered} layers, but the {what} has {layers}; "
            "give every layer exactly one span"
        )
