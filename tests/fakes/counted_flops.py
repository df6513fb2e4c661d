"""FLOPs as `torch.utils.flop_counter` counts them, on the meta device as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable


def counted(run: Callable[[], Any]) -> tuple[int, Any]:
    """Return the FLOPs of a run and its result; angles of rotary embeddings are left out.

    transformers before 5.20 computes them as a batched product, newer ones multiply.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        result = run()
    angles = (
        sum(ops.values())
        for path, ops in counter.get_flop_counts().items()
        if path.endswith("rotary_emb")
    )
    return counter.get_total_flops() - sum(angles), result
