"""The inputs every convention takes, checked once: model shape, tokens, batch, token schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.quantities import Num


@runtime_checkable
class TextShape(Protocol):
    """The numbers of a language model that a convention needs; a `TextConfig` has them.

    Width d, FFN width f, layers l, attention heads h, KV heads k, vocabulary v.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """A language model by its six numbers, for models that have no config at hand.

    >>> DecoderShape(4096, 11008, 32, 32, 32, 32000).num_layers
    32
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """What a convention is asked to count; a count is a number, or an array over scenarios.

    Attributes:
        model: a `ModelConfig`, a `TextConfig`, or anything with a text config's numbers.
        visual_tokens: visual tokens entering the language model.
        text_tokens: text tokens; None takes the length the authors used.
        batch_size: sequences.
        output_tokens: decode steps after the prefill.
        hardware: the device; ignored where no time is defined, LLM-Viewer takes its own names.
        precision: a precision's name; conventions that count operations alone ignore it.
        attention: `eager`, `flash` or None for the convention's own.
        llm_visual_tokens_per_layer: visual tokens seen by each layer of the language model, which is
            how a method that prunes inside the model is counted; None is `visual_tokens` in all.
    """

    model: Any
    visual_tokens: Num
    text_tokens: Num | None = None
    batch_size: Num = 1
    output_tokens: int = 0
    hardware: Any = None
    precision: Any = "fp16"
    attention: str | None = None
    llm_visual_tokens_per_layer: Sequence[Num] | None = None


def text_shape(model: Any) -> TextShape:
    """Return the language model's shape of a model config, a text config or a `DecoderShape`.

    Raises:
        InvalidInputError: the object has neither a `text` part nor the six numbers.
    """
    text = getattr(model, "text", model)
    if not isinstance(text, TextShape):
        raise InvalidInputError(
            f"a convention needs a model config or a text config, not {model!r}; "
            "give what costmodel.models.load_model returns"
        )
    return text


def check_tokens(name: str, value: Num) -> Num:
    """Return a token count or an array of them; raise unless finite and at least 0.

    Integer arrays come back as float64: it holds every count below 2^53 exactly, and a long sweep
    does not overflow.

    Raises:
        InvalidInputError: not a number, negative, or not finite.
    """
    return _checked(name, value, 0)


def check_batch(value: Num) -> Num:
    """Return a batch size or an array of them; raise unless finite and at least 1."""
    return _checked("batch_size", value, 1)


def _checked(name: str, value: Num, least: int) -> Num:
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if least <= value < float("inf"):
            return value
    elif isinstance(value, (np.ndarray, list, tuple)):
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            pass
        else:
            if bool(np.isfinite(array).all()) and bool((array >= least).all()):
                return array
    raise InvalidInputError(f"{name} must be a number of at least {least}, not {value!r}")


def layer_groups(
    visual_tokens: Num, per_layer: Sequence[Num] | None, num_layers: int
) -> tuple[tuple[Num, int], ...]:
    """Return (visual tokens, number of layers) groups that cover the language model.

    `per_layer` has the visual tokens seen by each layer (numbers, or arrays over scenarios); None gives every
    layer `visual_tokens`.

    Raises:
        InvalidInputError: the schedule has another length, or a negative count.

    >>> layer_groups(576, [576, 576, 288, 288], 4)
    ((576, 2), (288, 2))
    """
    entering = check_tokens("visual_tokens", visual_tokens)
    if per_layer is None:
        return ((entering, num_layers),)
    if len(per_layer) != num_layers:
        raise InvalidInputError(
            f"the token schedule has {len(per_layer)} entries, but the language model has "
            f"{num_layers} layers; give one count per layer"
        )
    groups: list[tuple[Num, int]] = []
    for entry in per_layer:
        tokens = check_tokens("llm_visual_tokens_per_layer", entry)
        if groups and np.array_equal(groups[-1][0], tokens):
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((tokens, 1))
    return tuple(groups)
