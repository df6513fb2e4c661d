"""Language models of experts on their own, against what `transformers` builds and torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from costmodel import estimate
from costmodel.models import model_from_config
from hardware_specs.errors import InvalidFileError
from profiling.counting.one_run import RotaryAngles

A100 = "nvidia-a100-sxm4-80gb"
SMALL = {
    "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
CONFIGS = {
    "as Qwen3-30B-A3B": SMALL
    | {
        "model_type": "qwen3_moe", "head_dim": 128, "num_experts": 16, "num_experts_per_tok": 4,
        "moe_intermediate_size": 96, "use_sliding_window": False, "sliding_window": None,
        "max_window_layers": 48,
    },
    "layers without experts": SMALL
    | {
        "model_type": "qwen3_moe", "head_dim": 64, "num_experts": 8, "decoder_sparse_step": 2,
        "moe_intermediate_size": 64, "mlp_only_layers": [],
    },
    "Mixtral": SMALL | {"model_type": "mixtral", "num_local_experts": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_and_flops_are_those_of_transformers(name: str) -> None:
    import transformers

    ours = model_from_config(CONFIGS[name], name)
    config = transformers.AutoConfig.for_model(**CONFIGS[name])
    # Its default, `grouped_mm`, is an op that the counter does not know.
    config._experts_implementation = "batched_mm"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=torch.bfloat16
        ).eval()
    assert ours.parameters == sum(part.numel() for part in model.parameters())
    for tokens in (1, 16, 300):
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        counter = FlopCounterMode(display=False)
        angles = RotaryAngles(counter)
        hooks = angles.watch(model)
        with torch.no_grad(), counter:
            model.lm_head(model.model(input_ids=ids, use_cache=True)[0][:, -1:])
        for hook in hooks:
            hook.remove()
        cost = estimate(ours, A100, text_tokens=tokens)
        assert cost.totals.flops == counter.get_total_flops() - angles.flops


def test_more_experts_for_a_token_than_there_are() -> None:
    broken = CONFIGS["Mixtral"] | {"num_experts_per_tok": 5}
    with pytest.raises(InvalidFileError, match="is more than num_local_experts"):
        model_from_config(broken, "broken")
