"""What a token-reduction function gives back.

`Reduced` is for methods that produce the shorter token list themselves; `Selection` is for methods
inside the language model, which say what stays of a sequence and leave hidden states, positions and
mask to the caller. A field a method has nothing to say about is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A shorter list of tokens and where it came from.

    Shapes use n tokens in, m tokens out, d width; leading dimensions are those of the input.

    Attributes:
        tokens: [..., m, d], in the order the next stage sees them.
        kept_indices: [..., m'] indices into the input tokens, in output order; None for methods
            that only merge. m' < m where merged tokens are appended.
        selection_order: [..., m'] the same indices in the order they were picked.
        cls_attention: [..., n] attention of the class token to every token given.
        scores: [..., n] the importance the method ranks by, where that is not cls_attention.
        sources: [..., n] position in the output that each input token went to; -1 for a token
            that is gone.
        sizes: [..., m, 1] how many input tokens each output token stands for.
        valid: [..., m] False where an output row is padding (batches of unequal length).
        build_merge_weights: computes merge_weights, which few callers want.
    """

    tokens: Tensor
    kept_indices: Tensor | None = None
    selection_order: Tensor | None = None
    cls_attention: Tensor | None = None
    scores: Tensor | None = None
    sources: Tensor | None = None
    sizes: Tensor | None = None
    valid: Tensor | None = None
    build_merge_weights: Callable[[], Tensor] | None = None

    @property
    def merge_weights(self) -> Tensor | None:
        """[..., m, n] with tokens = merge_weights @ features, computed when asked for."""
        return None if self.build_merge_weights is None else self.build_merge_weights()


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What stays of a sequence that holds image and text tokens.

    Attributes:
        kept_indices: [..., s'] indices into the whole sequence, ascending; also the original
            positions of what stays.
        image_indices: [..., m] the image tokens among them, counted from the first image token,
            ascending.
        scores: [..., n] importance of each image token; None where nothing was scored.
    """

    kept_indices: Tensor
    image_indices: Tensor
    scores: Tensor | None = None
