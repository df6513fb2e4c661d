"""The linear layers of a model by the names that `transformers` and engines give them.

A file that leaves layers out names them in the manner of its time: `language_model.model.layers.0`,
`model.language_model.layers.0`, `vision_tower`, `re:.*down_proj`. A pattern that fits any of a layer's
names means that layer.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, NamedTuple

from costmodel.blocks import Project
from hardware_specs.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from costmodel.blocks import Block, Stack
    from costmodel.models import ModelConfig

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj")
_TOWERS = ("vision_tower", "video_tower", "image_tower")


class Linear(NamedTuple):
    """One linear layer: the module it stands in, its own name, and its full names."""

    module: str
    product: str
    names: tuple[str, ...]


def linear_layers(model: ModelConfig) -> Iterator[Linear]:
    """Yield the linear layers of a model, those of each layer of a stack apart.

    >>> from costmodel.models import load_model
    >>> next(linear_layers(load_model("llama-2-7b"))).names
    ('model.layers.0.self_attn.q_proj',)
    """
    alone = model.vision is None
    roots: tuple[str, ...] = (
        ("model.",) if alone else ("language_model.model.", "model.language_model.")
    )
    yield from _of_stack("text", model.text.stack, roots)
    heads: tuple[str, ...] = ("lm_head",) if alone else ("lm_head", "language_model.lm_head")
    yield Linear("lm_head", "lm_head", heads)
    if model.vision is not None:
        towers = _TOWERS[1:] if model.vision.copies > 1 else _TOWERS[:1]
        for tower in towers:
            roots = tuple(
                f"{outer}{tower}.{inner}"
                for outer in ("", "model.")
                for inner in ("vision_model.encoder.", "encoder.")
            )
            yield from _of_stack("vision", model.vision.stack, roots)
    if model.projector is not None:
        for product in _products(model.projector.blocks):
            end = f"multi_modal_projector.{product}"
            yield Linear("projector", product, (end, f"model.{end}"))


def _of_stack(module: str, stack: Stack, roots: tuple[str, ...]) -> Iterator[Linear]:
    for layer, kind in enumerate(stack.pattern):
        for product in _products(stack.kinds[kind]):
            part = "self_attn" if product in _ATTENTION else "mlp"
            yield Linear(
                module, product, tuple(f"{root}layers.{layer}.{part}.{product}" for root in roots)
            )


def _products(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Project) and not block.module:
            yield from (name for name, _ in block.parts)


def matcher(
    patterns: tuple[str, ...], file: str, *, globs: bool = False
) -> Callable[[Linear], bool]:
    """Return whether a layer is meant by any of the patterns.

    Args:
        patterns: names, parts of names, or `re:` and a regular expression that fits from the start.
        file: where they stand, for messages.
        globs: whether they are a shell's, as `lm_head` and `vision_tower*`.

    Raises:
        InvalidFileError: no regular expression.

    >>> layer = Linear("vision", "fc1", ("vision_tower.encoder.layers.1.mlp.fc1",))
    >>> [matcher((name,), "")(layer) for name in ("vision_tower", "layers.1", "layers.11", "re:.*fc1")]
    [True, True, False, True]
    """
    try:
        found = [_compiled(pattern, globs) for pattern in patterns]
    except re.error as error:
        raise InvalidFileError(
            f"{file}: quantization_config leaves out layers by {error.pattern!r}, which is no "
            f"regular expression: {error}"
        ) from error
    return lambda layer: any(form.match(name) for form in found for name in layer.names)


def _compiled(pattern: str, globs: bool) -> re.Pattern[str]:
    if pattern.startswith("re:"):
        return re.compile(pattern[3:])
    text = pattern.removesuffix(".weight").strip(".")
    if globs:
        # A bare name means all below it.
        return re.compile(rf"(?:.*\.)?(?:{fnmatch.translate(text)}|{re.escape(text)}\.)")
    return re.compile(rf"(?:.*\.)?(?:{text})(?:\.|\Z)")
