"""Host seconds per kernel: the prior, and what software stacks measured.

| stack | host | us per kernel |
|---|---|---|
| transformers 4.34 to 4.35, A100 (decode of 7B and 13B, prefill of 128) | DGX | 17.4, 17.8, 16.9 |
| the same with FlashAttention 2 | DGX | 18.4 to 19.4 |
| transformers 4.33, torch 2.0.1, A100 | DGX | 21.7 |
| 2023 stack, Vicuna-7B at 31 ms a token, V100 | not stated | 20.7 |
| 2023 stack, Vicuna-7B at 33 ms a token, A40 | not stated | 22.0 |
| 2023 stack, Vicuna-7B at 37 ms a token, A100 | not stated | 24.7 |
| torch 2.10 on a processor that is its own device | desktop CPU | 6 |

The first three rows are optimum-benchmark's (huggingface, Apache-2.0), the 2023 stacks ML.ENERGY's
leaderboard of that year. The milliseconds are divided by the 1,499 kernels that the plan `hf-eager`
launches for a token of a 32-layer model. The prior is log-normal with median 17 us and a standard
deviation of 0.45 in the logarithm: the hosts are few, and a user's own number replaces it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from costmodel.calibration.parameters import Parameter

if TYPE_CHECKING:
    from hardware_specs import HardwareSpec

MEDIAN_S, LOG_SPREAD = 17e-6, 0.45
#: 90 % of a normal distribution lie within so many standard deviations of its mean.
Z90 = 1.645
PRIOR = Parameter(
    MEDIAN_S, MEDIAN_S * math.exp(-Z90 * LOG_SPREAD), MEDIAN_S * math.exp(Z90 * LOG_SPREAD)
)
#: A processor that computes as well: its launches are calls.
OWN_HOST = Parameter(6e-6, 3e-6, 12e-6)


def own_host_fields(hardware: HardwareSpec) -> dict[str, Any]:
    """Return the fields of a calibration that a device which is its own host has of its own."""
    if not hardware.id.startswith("cpu-"):
        return {}
    return {
        "host_s_per_kernel": OWN_HOST.value,
        "intervals": {"host_s_per_kernel": OWN_HOST},
        "notes": {
            "host_s_per_kernel": "assumed: about 6 us per kernel measured on one CPU under eager PyTorch"
        },
    }
