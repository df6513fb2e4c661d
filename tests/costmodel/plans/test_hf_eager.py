"""The hf-eager plan against what `transformers` really dispatches, reads, writes and holds.

Small random models run on the CPU. A ledger enters every tensor's storage and strikes it out when it
dies, so memory needs no allocator: weights and cache are known to the byte, and the rest of a phase's
peak are activations. A second watcher adds up what every op reads and writes.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from costmodel import estimate, sweep
from costmodel.models import config_dict
from profiling.counting.ledger import Ledger
from token_reduction.caches import cache_keyword, cache_of

#: A device whose libraries take no workspace from PyTorch's allocator.
DEVICE = "amd-mi300x"
VISUAL_TOKENS, TEXT_TOKENS, BATCH = 160, 40, 2
#: Older versions of transformers keep every layer's output of the tower, not only the one asked for.
KEEPS_ONE_LAYER = tuple(map(int, version("transformers").split(".")[:2])) >= (5, 23)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

#: name -> (shipped model, keys of the language model, keys of the tower).
SHAPES: dict[str, tuple[str, dict[str, int], dict[str, int]]] = {
    "wide-ffn": (
        "llava-1.5-7b",
        {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2,
         "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 4096},
        {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2},
    ),
    "many-heads": (
        "llava-1.5-7b",
        {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 16,
         "num_key_value_heads": 16, "head_dim": 16, "vocab_size": 1024},
        {"hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4},
    ),
    "grouped-queries": (
        "llava-next-mistral-7b",
        {"hidden_size": 256, "intermediate_size": 896, "num_attention_heads": 16,
         "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 1024},
        {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2},
    ),
    "siglip-qwen": (
        "llava-onevision-7b",
        {"hidden_size": 112, "intermediate_size": 592, "num_attention_heads": 7,
         "num_key_value_heads": 1, "vocab_size": 2048},
        {"hidden_size": 48, "intermediate_size": 180, "num_attention_heads": 1},
    ),
}  # fmt: skip


def _config(shape: str) -> dict[str, Any]:
    name, text, vision = SHAPES[shape]
    raw = config_dict(name)
    raw["text_config"].update(text, num_hidden_layers=3)
    raw["vision_config"].update(vision, num_hidden_layers=3)
    # Lists and special tokens of the full-size model would not fit the small one.
    for key in ("layer_types", "max_window_layers", "bos_token_id", "eos_token_id"):
        raw["text_config"].pop(key, None)
    return raw


class Traffic(Ledger):
    """A ledger that also adds up what the ops that launch a kernel read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = self.kernels
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if self.kernels > before:
            # A look-up reads the rows it returns, not the table.
            read = result if func._schema.name == "aten::embedding" else (args, kwargs)
            tensors = [t for t in tree_leaves((read, result)) if isinstance(t, torch.Tensor)]
            self.moved_bytes += sum(map(_stored_bytes, tensors))
        return result


def _stored_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements; a dimension that is only repeated is read once."""
    sides = (n for n, step in zip(tensor.shape, tensor.stride(), strict=True) if step)
    return tensor.element_size() * math.prod(sides)


class Case:
    """A small model with its inputs, its weights' bytes, and the estimate of the same scenario."""

    def __init__(self, shape: str, precision: str, attention: str, folder: Any, **given: Any):
        import transformers

        raw = _config(shape)
        (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        self.cost = estimate(
            folder, DEVICE, visual_tokens=VISUAL_TOKENS, text_tokens=TEXT_TOKENS, batch_size=BATCH,
            execution="hf-eager", precision=precision, attention=attention, **given,
        )  # fmt: skip
        self.dtype = DTYPES[precision]
        kernel = "eager" if attention == "eager" else "sdpa"
        config = transformers.AutoConfig.for_model(**raw)
        self.model: Any = transformers.AutoModelForImageTextToText.from_config(
            config, attn_implementation=kernel, dtype=self.dtype
        ).eval()
        side = raw["vision_config"]["image_size"]
        images = BATCH * self.cost.inputs["crops"]
        self.pixels = torch.randn(images, 3, side, side, dtype=self.dtype)
        width = raw["text_config"]["hidden_size"]
        self.prompt = torch.randn(BATCH, VISUAL_TOKENS + TEXT_TOKENS, width, dtype=self.dtype)
        self.weights = [*self.model.parameters(), *self.model.buffers()]
        self.loaded = Ledger(self.weights).live_bytes
        self.feature_layer = raw["vision_feature_layer"]

    def tower(self) -> Any:
        inner = self.model.model
        tower = next(
            getattr(inner, n) for n in ("vision_tower", "image_tower") if hasattr(inner, n)
        )
        outputs = tower(self.pixels, output_hidden_states=[self.feature_layer])
        return outputs.hidden_states[self.feature_layer]

    def prefill(self, rows: int) -> Any:
        return self.model(inputs_embeds=self.prompt, use_cache=True, logits_to_keep=rows)

    def predicted(self, phase: str) -> float:
        """KV cache and activations of a phase; `prefill` is the highest of its phases."""
        phases = [p for p in self.cost.memory.timeline if p.name.startswith(phase)]
        return max(p.kv_cache_bytes + p.activation_bytes for p in phases)

    def measured(self, held: list[torch.Tensor], run: Any) -> int:
        """Return the highest live bytes while `run` runs, weights apart."""
        with torch.no_grad(), Ledger([*self.weights, *held]) as ledger:
            run()
        return ledger.peak_bytes - self.loaded


@pytest.mark.parametrize("attention", ["flash", "eager"])
@pytest.mark.parametrize("precision", list(DTYPES))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_vision_and_prefill(shape: str, precision: str, attention: str, tmp_path) -> None:
    case = Case(shape, precision, attention, tmp_path)
    slow = (shape, attention) == ("siglip-qwen", "eager")  # 20 crops of 729^2 scores
    if KEEPS_ONE_LAYER and not slow:
        seen = case.measured([case.pixels], case.tower)
        assert case.predicted("vision") == pytest.approx(seen, rel=0.01)
    seen = case.measured([case.pixels, case.prompt], lambda: case.prefill(1))
    assert case.predicted("prefill") == pytest.approx(seen, rel=0.01)


@pytest.mark.parametrize("precision", list(DTYPES))
def test_logits_of_every_row(precision: str, tmp_path) -> None:
    case = Case("wide-ffn", precision, "flash", tmp_path, logits="all")
    seen = case.measured([case.pixels, case.prompt], lambda: case.prefill(0))
    # 4096 logits a token outweigh the widest layer.
    assert case.predicted("logits") > case.predicted("prefill")
    assert case.predicted("logits") == pytest.approx(seen, rel=0.01)


@pytest.mark.skipif(not KEEPS_ONE_LAYER, reason="this transformers keeps every layer's output")
@pytest.mark.parametrize("precision", list(DTYPES))
def test_projector(precision: str, tmp_path) -> None:
    """The projector sees what the tower gave, whatever the language model is handed of it."""
    case = Case("wide-ffn", precision, "flash", tmp_path)
    peaks: list[int] = []
    module = case.model.model.multi_modal_projector
    with torch.no_grad(), Ledger([*case.weights, case.pixels]) as ledger:
        before = module.register_forward_pre_hook(lambda *_: ledger.take_peaks() and None)
        after = module.register_forward_hook(lambda *_: peaks.append(ledger.take_peaks()[0]))
        case.model.model.get_image_features(pixel_values=case.pixels)
    before.remove()
    after.remove()
    assert case.predicted("projector") == pytest.approx(peaks[0] - case.loaded, rel=0.01)


@pytest.mark.parametrize("shape", ["wide-ffn", "grouped-queries"])
def test_one_decode_step(shape: str, tmp_path) -> None:
    """Concatenation holds a layer's old keys beside the new: half a layer's cache, not all of it."""
    case = Case(shape, "bf16", "flash", tmp_path, output_tokens=1)
    with torch.no_grad():
        first = case.prefill(1)
    cache, token = cache_of(first), first.logits[:, -1:].argmax(-1)
    del first
    held = [case.pixels, *(t for layer in cache.layers for t in (layer.keys, layer.values))]
    ledger = Ledger([*case.weights, *held])
    del held
    with torch.no_grad(), ledger:
        case.model(input_ids=token, **{cache_keyword(): cache}, use_cache=True, logits_to_keep=1)
    seen = ledger.peak_bytes - case.loaded
    assert case.predicted("decode") == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("attention", ["flash", "eager"])
@pytest.mark.parametrize("precision", list(DTYPES))
@pytest.mark.parametrize("shape", ["wide-ffn", "many-heads", "grouped-queries"])
def test_traffic_and_kernels(shape: str, precision: str, attention: str, tmp_path) -> None:
    """Every read and write of every kernel, added up; the plan has them kind by kind."""
    case = Case(shape, precision, attention, tmp_path, output_tokens=1)
    seen = {}
    with torch.no_grad():
        with Traffic() as seen["vision"]:
            case.tower()
        with Traffic() as seen["prefill"]:
            first = case.prefill(1)
        token = first.logits[:, -1:].argmax(-1)
        with Traffic() as seen["decode"]:
            case.model(input_ids=token, **{cache_keyword(): cache_of(first)}, logits_to_keep=1)
    for stage, traffic in seen.items():
        planned = case.cost.stages[stage]
        assert planned.hbm_bytes == pytest.approx(traffic.moved_bytes, rel=0.01), stage
        # The angles' chain is one kernel longer in one version or format, one shorter in another.
        assert abs(planned.kernels - traffic.kernels) <= 2, stage


def test_softmax_over_rows_too_long_for_registers_is_slower_and_sweeps_agree() -> None:
    given = {"execution": "hf-eager", "attention": "eager", "host_s": 0.0}
    device = "nvidia-h100-sxm5-80gb"
    costs = [estimate("llama-2-7b", device, text_tokens=n, **given) for n in (1024, 1025)]
    classes = [{op.op_class for op in cost.ops if op.name == "softmax"} for cost in costs]
    assert classes == [{"pointwise"}, {"softmax"}]
    times = [
        sum(op.time_s for op in cost.ops if op.name == "softmax" and op.stage == "prefill")
        for cost in costs
    ]
    assert times[1] > 2.5 * times[0]
    table = sweep("llama-2-7b", device, text_tokens=[1024, 1025], **given)
    assert table["time_s"].tolist() == pytest.approx([cost.totals.time_s for cost in costs])
