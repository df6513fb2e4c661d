"""One rank of a tiny Llama that `torch.distributed` divides by the plan of transformers; prints what it saw.

python rank.py RANK WORLD RENDEZVOUS_FILE CONFIG_JSON MODEL_TYPE[+sequence]...

With `+sequence` the norms are divided by sequence.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = 12
KINDS = ("all_reduce", "all_gather", "reduce_scatter")


class Watch(TorchDispatchMode):
    """Adds up the bytes of the tensors that collectives are given, and the FLOPs of this rank's products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        kind = next((kind for kind in KINDS if kind in name), None)
        if kind is not None:
            # A gather is what it yields, a sum what it is given.
            tensor = out if kind == "all_gather" else args[0]
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
    told, shape = {}, json.loads(sys.argv[4])
    for name in sys.argv[5:]:
        kind, _, by_sequence = name.partition("+")
        told[name] = _seen(AutoConfig.for_model(kind, **shape), mesh, bool(by_sequence))
    sys.stdout.write(json.dumps(told))
    dist.destroy_process_group()


def _seen(config: Any, mesh: Any, by_sequence: bool) -> dict[str, Any]:
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
    if by_sequence:
        plan |= _divided_by_sequence()
    parallelize_module(model, mesh, plan)
    held = sum(_local(each).numel() for each in model.parameters())
    watch = Watch()
    with torch.no_grad(), watch:
        logits = model(ids, position_ids=torch.arange(TOKENS)[None], use_cache=False).logits
    off = float((logits - whole).abs().max())
    return {"parameters": held, "off": off, **watch.seen}


def _divided_by_sequence() -> dict[str, Any]:
    """The plan's changes, as torch's tutorial of tensor parallelism has them for Llama."""
    rows, layer = Shard(1), "model.layers.*"
    whole = {"input_layouts": (rows,), "desired_input_layouts": (Replicate(),)}
    named = {"input_kwarg_layouts": {"hidden_states": rows},
             "desired_input_kwarg_layouts": {"hidden_states": Replicate()}}  # fmt: skip
    return {
        "model.embed_tokens": RowwiseParallel(input_layouts=Replicate(), output_layouts=rows),
        f"{layer}.input_layernorm": SequenceParallel(),
        f"{layer}.self_attn": PrepareModuleInput(**named),
        f"{layer}.self_attn.o_proj": RowwiseParallel(output_layouts=rows),
        f"{layer}.post_attention_layernorm": SequenceParallel(),
        f"{layer}.mlp": PrepareModuleInput(**whole),
        f"{layer}.mlp.down_proj": RowwiseParallel(output_layouts=rows),
        "model.norm": SequenceParallel(),
        "lm_head": ColwiseParallel(input_layouts=rows, output_layouts=Replicate()),
    }


if __name__ == "__main__":
    main()
