"""One rank of a tiny Llama that `torch.distributed` divides by the plan of transformers; prints what it saw.

python rank.py RANK WORLD RENDEZVOUS_FILE
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = 12
SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "tie_word_embeddings": False,
}  # fmt: skip


class Watch(TorchDispatchMode):
    """Adds up the bytes of the tensors that collectives are given, and the FLOPs of this rank's products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if "all_reduce" in name or "all_gather" in name:
            # A gather is what it yields, a sum what it is given.
            tensor, kind = (out, "all_gather") if "all_gather" in name else (args[0], "all_reduce")
            self.seen[kind] += tensor.numel() * tensor.element_size()
            self.seen[f"{kind}s"] += 1
        elif name in ("aten.mm.default", "aten.addmm.default"):
            (m, k), (_, n) = (_local(tensor).shape for tensor in args[-2:])
            self.seen["flops"] += 2 * m * k * n
        elif "attention" in name:
            (b, h, s, e), t = args[0].shape, args[1].shape[2]
            self.seen["flops"] += 4 * b * h * s * t * e
        return out


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def main() -> None:
    """Divide each model, run one prefill, print parameters, FLOPs and bytes."""
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group(
        "gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world
    )
    mesh = dist.init_device_mesh("cpu", (world,))
    told = {name: _seen(AutoConfig.for_model(name, **SHAPE), mesh) for name in sys.argv[4:]}
    sys.stdout.write(json.dumps(told))
    dist.destroy_process_group()


def _seen(config: Any, mesh: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(TOKENS)[None]
    with torch.no_grad():
        whole = model(ids).logits
    styles = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
    plan: dict[str, Any] = {
        f"model.{name}": styles[style]()
        for name, style in config.base_model_tp_plan.items()
        if style in styles
    }
    plan["model.embed_tokens"] = RowwiseParallel(input_layouts=Replicate())
    plan["lm_head"] = ColwiseParallel(output_layouts=Replicate())
    parallelize_module(model, mesh, plan)
    held = sum(_local(each).numel() for each in model.parameters())
    watch = Watch()
    with torch.no_grad(), watch:
        logits = model(ids).logits
    off = float((logits - whole).abs().max())
    return {"parameters": held, "off": off, **watch.seen}


if __name__ == "__main__":
    main()
