"""The bytes of a model's weights as they are stored."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from costmodel.blocks import Project

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.blocks import Block, Stack
    from costmodel.models import ModelConfig
    from costmodel.precision import Numerics, Precision
    from costmodel.quantities import Num


@lru_cache(maxsize=256)
def model_weight_bytes(model: ModelConfig, precision: Precision) -> Num:
    """Bytes of all weights as stored, with scales and zero points.

    Norms, biases, embeddings and what else is not a linear layer keep 16 bits.

    Args:
        model: the model.
        precision: the numerics of every module.

    >>> from costmodel import load_model
    >>> from costmodel.precision import parse_precision
    >>> model_weight_bytes(load_model("llava-1.5-7b"), parse_precision("fp16"))  # 2 B x 7,063,427,072
    14126854144
    """
    text, vision, projector = model.text, model.vision, model.projector
    wide = precision.lm_head.activation_bytes
    size = _stack_bytes(text.stack, precision.text, wide)
    size += _stored_bytes([text.head], precision.lm_head, wide)
    size += model.extra_parameters * wide
    table = text.embedding
    if precision.embedding is None:
        size += table.parameters * wide
    else:
        # Where head and embedding are one matrix, it is stored as a head is.
        stored = precision.lm_head if text.head.shared else precision.embedding
        size += stored.stored_bytes(table.width, table.table)
    if vision is not None:
        numerics = precision.vision
        size += vision.copies * _stack_bytes(vision.stack, numerics, numerics.activation_bytes)
    if projector is not None:
        numerics = precision.projector
        size += _stored_bytes(projector.blocks, numerics, numerics.activation_bytes)
    # Means over layers may be fractions; bytes are whole.
    return round(size)


def _stack_bytes(stack: Stack, numerics: Numerics, wide: float) -> float:
    """Bytes of layers as stored, and of what stands around them."""
    each = [_stored_bytes(kind, numerics, wide) for kind in stack.kinds]
    around = _stored_bytes((*stack.before, *stack.after), numerics, wide)
    return sum(count * each[kind] for kind, count in Counter(stack.pattern).items()) + around


def _stored_bytes(blocks: Iterable[Block], numerics: Numerics, wide: float) -> float:
    """Bytes of blocks: matrices as stored, all else at `wide` bytes a number."""
    size: float = 0
    for block in blocks:
        if isinstance(block, Project) and not block.shared:
            each = sum(numerics.of(name).stored_bytes(block.width, n) for name, n in block.parts)
            size += each * max(block.experts, 1)
            size += block.bias * block.outputs * wide
        else:
            size += block.parameters * wide
    return size
