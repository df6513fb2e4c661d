"""FLOPs of a tiny model at work under a method, by stage.

A method's own work is told by `observe`, the rest by module. The counter sees matrix products, convolutions
and attention, which runs by its decomposed (math) kernel here, since the counter has no entry for the CPU's
fused one. Older transformers compute the rotary angles as a batched product: that one is counted apart and
left out, wherever it runs.
"""

from __future__ import annotations

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from costmodel import load_model
from costmodel.precision import parse_precision
from profiling.counting.one_run import RotaryAngles
from token_reduction import get_method, observe, reduce_tokens
from token_reduction.caches import cache_keyword, cache_of

A100 = "nvidia-a100-sxm4-80gb"
IMAGE, VIDEO = 99, 98  # the placeholders' ids
TEXT = 7
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 13, "num_attention_heads": 4, "image_size": 84, "patch_size": 14,
    "projection_dim": 16,
}  # fmt: skip
LANGUAGE = {
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 12,
    "max_position_embeddings": 4096,
}  # fmt: skip
#: Methods for clips, on three frames of 9 to 37 tokens.
ON_CLIPS = [
    *(("evs", {}), ("evs", {"keep": 20}), ("vidcom2", {}), ("vidcom2", {"keep": 12})),
    *(("dycoke", {}), ("dycoke", {"keep": 0.5})),
    *(("dycoke(variant=both)", {}), ("dycoke(variant=both, park=0.4, at=5)", {"keep": 0.5})),
]
#: Those that weigh frames by the tower, on three frames of 9 tokens, each a scene.
WEIGHED = [
    *(("fastvid", {"keep": 0.5}), ("fastvid(threshold=-1)", {"keep": 0.6})),
    *(("holitom(threshold=1)", {"keep": 0.5}), ("holitom(threshold=1, cut=3, deep=0.2)", {})),
    *(("holitom(threshold=1, cut=0)", {}), ("holitom(threshold=1, cut=0)/fastv(keep=0.5)", {})),
]


def build(kind, tmp_path, vision=VISION, language=LANGUAGE, **settings):
    config = transformers.AutoConfig.for_model(
        kind, vision_config=vision, text_config=language, image_token_index=IMAGE, **settings
    )
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    return model.eval(), load_model(tmp_path)


class Counted:
    """FLOPs by stage of everything that ran inside the block."""

    def __init__(self, model) -> None:
        self.by_stage = {}
        self._counter = FlopCounterMode(display=False)
        self._angles = RotaryAngles(self._counter)
        self._reduction = 0
        self._starts = []
        inner = model.model
        towers = ("vision_tower", "image_tower", "video_tower")
        self._modules = [
            *(("vision", getattr(inner, name)) for name in towers if hasattr(inner, name)),
            ("projector", inner.multi_modal_projector),
            ("prefill", inner.language_model),
            ("head", model.lm_head),
        ]
        self._model = inner

    def _total(self) -> int:
        return self._counter.get_total_flops() - self._angles.flops

    def _told(self, name: str, begins: bool) -> None:
        assert name == "reduction"
        if begins:
            self._starts.append(self._total())
            return
        start = self._starts.pop()
        if not self._starts:
            self._reduction += self._total() - start

    def __enter__(self):
        self._stack = []
        self._hooks = []
        for stage, module in self._modules:
            # Own work may run in hooks of the same module: what matters is what it adds in between.
            def before(*_):
                self._stack.append((self._total(), self._reduction))

            def after(*_, stage=stage):
                total, reduction = self._stack.pop()
                spent = self._total() - total - (self._reduction - reduction)
                self.by_stage[stage] = self.by_stage.get(stage, 0) + spent

            self._hooks += [
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            ]
        self._kernel = sdpa_kernel(SDPBackend.MATH)
        self._observer = observe(self._told)
        self._no_grad = torch.no_grad()
        for part in (self._no_grad, self._kernel, self._counter, self._observer):
            part.__enter__()
        self._hooks += self._angles.watch(self._model)
        return self

    def __exit__(self, *error):
        for part in (self._observer, self._counter, self._kernel, self._no_grad):
            part.__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        self.by_stage["prefill"] += self.by_stage.pop("head", 0)
        self.by_stage["reduction"] = self._reduction
        assert sum(self.by_stage.values()) == self._total(), "work outside every stage"


def prompt(batch, visual, before=3, mark=IMAGE):
    text = list(range(1, TEXT + 1))
    ids = text[:before] + [mark] * visual + text[before:]
    assert len(ids) == TEXT + visual
    return torch.tensor([ids] * batch)


def run(model, method, batch, visual, pixels, before=3, mark=IMAGE, **inputs):
    """Prefill and one decode step; FLOPs of each by stage, and the record."""
    torch.manual_seed(1)
    ids = prompt(batch, visual, before, mark)
    if pixels is not None:
        inputs["pixel_values"] = pixels
    with reduce_tokens(model, method) as record:
        with Counted(model) as prefill:
            out = model(input_ids=ids, use_cache=True, logits_to_keep=1, **inputs)
        with Counted(model) as decode:
            model(
                input_ids=ids[:, -1:],
                **{cache_keyword(): cache_of(out)},
                use_cache=True,
                logits_to_keep=1,
            )
    return prefill.by_stage, decode.by_stage, record


def lengths(name, config, visual, crops, projected, *, text=TEXT, batch=1, keep=None, layer=None):
    """Tokens entering each layer of the language model, as the cost model has them."""
    plan = get_method(name).plan(
        config, parse_precision("fp32"), visual, projected, crops, text, batch,
        config.vision.num_layers, keep=keep, layer=layer,
    )  # fmt: skip
    return [text + span.tokens for span in plan.llm_spans for _ in range(span.layers)]


def assert_equal(cost, counted, decoded=None):
    """Every stage of the prefill costs what was counted, and the decode step, where one ran."""
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    if decoded is not None:
        assert cost.stages["decode"].flops == decoded["prefill"]
