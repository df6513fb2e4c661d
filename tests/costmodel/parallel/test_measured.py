"""Llama-2-70B over 2 and 8 devices, measured by others.

Mutinifni/splitwise-sim @ 8f99e7d data/perf_model.csv (MIT): medians of prefills on DGX A100 and H100. What is
not met, longer prefills and decode, is in docs/parallel.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import hardware_specs
from costmodel import estimate

LLAMA_2_70B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192,
    "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
A100, H100 = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb"
#: Device, prompt, batch -> seconds of a prefill over 2 and over 8 devices.
PREFILLS = {
    (A100, 512, 1): (0.19686, 0.09431), (A100, 1024, 1): (0.37706, 0.15446),
    (A100, 2048, 1): (0.68805, 0.27422), (A100, 512, 2): (0.41649, 0.16594),
    (A100, 512, 4): (0.84537, 0.29228),
    (H100, 512, 1): (0.08383, 0.05339), (H100, 1024, 1): (0.15795, 0.07791),
    (H100, 2048, 1): (0.31032, 0.13680), (H100, 512, 2): (0.15584, 0.07689),
    (H100, 512, 4): (0.29982, 0.13264),
}  # fmt: skip


@pytest.mark.parametrize(("device", "prompt", "batch"), PREFILLS)
def test_eight_devices_over_two(device: str, prompt: int, batch: int) -> None:
    two, eight = (
        estimate(LLAMA_2_70B, device, text_tokens=prompt, batch_size=batch, tp=tp, precision="fp16")
        for tp in (2, 8)
    )
    measured = PREFILLS[device, prompt, batch]
    ratio = eight.totals.ttft_s / two.totals.ttft_s
    assert ratio == pytest.approx(measured[1] / measured[0], rel=0.15)


def test_the_page_says_what_dividing_norms_by_sequence_changes() -> None:
    page = Path(hardware_specs.__file__).parents[1] / "docs" / "parallel.md"
    said = [
        [cell.strip() for cell in line.split("|")[2:4]]
        for line in page.read_text().splitlines()
        if line.startswith(("| prefill |", "| of it coll", "| decode, 8", "| activations at"))
    ]
    costs = [
        estimate("llava-1.5-7b", A100, tp=4, batch_size=8, output_tokens=8, norms=norms)
        for norms in ("replicated", "sequence")
    ]
    peaks = [
        max(phase.activation_bytes for phase in cost.memory.timeline if "layers" in phase.name)
        for cost in costs
    ]
    prefills, decodes = ([cost.stages[stage] for cost in costs] for stage in ("prefill", "decode"))
    assert said == [
        [f"{stage.time_s * 1e3:.1f} ms" for stage in prefills],
        [f"{stage.link_s * 1e3:.1f} ms" for stage in prefills],
        [f"{stage.time_s * 1e3:.1f} ms" for stage in decodes],
        [f"{peak / 1e6:.0f} MB" for peak in peaks],
    ]
