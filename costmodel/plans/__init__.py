"""Execution plans: which kernels a stage launches.

- `fused`: ideal traffic, one kernel per op class, as a serving engine launches them: Q, K and V in
  one product, gate and up in one, residual add inside the norm, rotation inside the cache write.
- `hf-eager`: what `transformers` launches under eager PyTorch with SDPA: norms, rotations, SwiGLU,
  residuals, casts and cache concatenation are chains of kernels that read and write memory.
- `cuda-graph`: the hf-eager kernels replayed, so without host cost.
"""

from __future__ import annotations

from hardware_specs.errors import InvalidInputError

EXECUTION_PLANS = ("fused", "hf-eager", "cuda-graph")


def check_plan(execution: str) -> str:
    """Return `execution` when it names a plan.

    Raises:
        InvalidInputError: it does not.

    >>> check_plan("fused")
    'fused'
    """
    if execution not in EXECUTION_PLANS:
        raise InvalidInputError(
            f"execution {execution!r} is unknown; there is: {', '.join(EXECUTION_PLANS)}"
        )
    return execution
