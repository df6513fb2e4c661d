# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reducing visual tokens: what each method costs, saves and loses
#
# Methods drop or merge visual tokens at different places: inside the vision tower, before the
# language model, or inside it. Where they do it, and what they compute to do it, decides what they
# save. Prices here are the ideal roofline on an A100; the pictures are of a small LLaVA with random weights.

# %%
import matplotlib.pyplot as plt
import pandas as pd

from costmodel import estimate
from costmodel.methods import list_methods, method_info
from costmodel.plots import plot_frontier
from costmodel.plots.style import STYLE
from costmodel.questions.frontiers import frontier
from hardware_specs.errors import UnsupportedError

plt.rcParams.update(STYLE)
pd.options.display.float_format = "{:,.3f}".format
A100 = "nvidia-a100-sxm4-80gb"
full = estimate("llava-1.5-7b", A100, calibration="none")

# %% [markdown]
# ## Every method at its published setting
#
# `reduction` is the method's own work. CrossGET and ToMe pay in every layer of the tower; FastV and
# FitPrune leave the tower and part of the language model at full length.

# %%
rows = []
for name in list_methods():
    try:
        cost = estimate("llava-1.5-7b", A100, method=name, calibration="none")
    except UnsupportedError:
        continue  # takes models of native resolution alone
    rows.append(
        {
            "method": name,
            "place": method_info(name).place,
            "TFLOP": cost.totals.flops / 1e12,
            "FLOPs, times less": full.totals.flops / cost.totals.flops,
            "time, times less": full.totals.ttft_s / cost.totals.ttft_s,
            "own GFLOP": cost.stages["reduction"].flops / 1e9,
            "own kernels": cost.stages["reduction"].kernels,
            "KV cache, MB": cost.memory.kv_cache_bytes / 1e6,
        }
    )
pd.DataFrame(rows).set_index("method").sort_values("time, times less", ascending=False)

# %% [markdown]
# **A second number.** DivPrune keeps 56 of 576 tokens. Its own products are the 576 x 576 cosine
# similarities of 4096-wide tokens, and the language model sees 56 + 40 tokens:

# %%
divprune = estimate("llava-1.5-7b", A100, method="divprune", calibration="none")
by_hand = 32 * (2 * 96 * (4 * 4096**2 + 3 * 4096 * 11008) + 4 * 96**2 * 4096) + 2 * 4096 * 32064
assert divprune.stages["prefill"].flops == by_hand
assert divprune.stages["reduction"].flops == 2 * 576**2 * 4096
f"{by_hand / 1e9:,.1f} GFLOP of prefill, {2 * 576**2 * 4096 / 1e9:.2f} GFLOP of its own"

# %% [markdown]
# ## Same tokens, different place
#
# FitPrune keeps a share of the visual FLOPs, the others a share of the tokens. Before the language
# model every layer is short; at layer K the
# layers before it are not, and their KV cache stays.

# %%
keeps = [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
figure, axis = plt.subplots(figsize=(6.5, 4))
for name, style in (
    ("sequential", "-o"),
    ("divprune", "--s"),
    ("fastv", "-.^"),
    ("fitprune", ":d"),
):
    times = [
        estimate("llava-1.5-7b", A100, method=name, keep=keep, calibration="none").totals.ttft_s
        * 1e3
        for keep in keeps
    ]
    axis.plot([100 * keep for keep in keeps], times, style, color="black", label=name)
axis.axhline(full.totals.ttft_s * 1e3, color="#D55E00", linewidth=1, label="no reduction")
axis.set(
    xlabel="visual tokens kept, %",
    ylabel="ms",
    ylim=(0, None),
    title="ideal time to first token, LLaVA-1.5-7B, FP16, A100",
)
axis.legend()
figure.tight_layout()

# %% [markdown]
# ## What each of them keeps
#
# The same names run in a model. This one has LLaVA-1.5's image size and patches, an eighth of its width and
# random weights: it understands nothing, but patches that look alike have features that are alike, and that
# is all that these three read. Spatial sampling takes every so many patches, whatever they show. DivPrune
# takes the patches farthest from each other: edges, the sun, a window, hardly any sky. ToMe merges the most
# alike in each layer of the tower; one colour is one token.

# %%
# %%capture
import torch
import transformers
from PIL import Image

from profiling import build_model
from token_reduction import get_method, reduce_tokens
from token_reduction.divprune import divprune as select
from token_reduction.pictures.overlay import draw_overlay

model = build_model("llava-1.5-7b@layers=6,width=1/16", dtype="fp32", device="cpu")
processor_class = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
processor = processor_class(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})

# %%
picture = Image.open("data/house.png").convert("RGB")
pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
prompt = torch.tensor([[1] + [model.config.image_token_id] * 576 + [2] * 10])


def kept_of(method):
    with torch.no_grad(), reduce_tokens(model, method, trace=True) as record:
        model(input_ids=prompt, pixel_values=pixels)
    return draw_overlay(picture, model, record, processor)


chosen = (
    get_method("spatial", keep=36),
    get_method("divprune", keep=64),
    get_method("tome", r=90),
)
figure, axes = plt.subplots(1, 3, figsize=(12, 4.8), layout="constrained")
for axis, method in zip(axes, chosen, strict=True):
    axis.imshow(kept_of(method))
    axis.axis("off")

# %% [markdown]
# DivPrune's picks can be checked against its definition alone: each new token is the one farthest from those
# before it.

# %%
torch.manual_seed(0)
tokens = torch.randn(576, 64)
picked = select(tokens, 56)
unit = torch.nn.functional.normalize(tokens.double(), dim=-1)
distance = 1 - unit @ unit.T
order = picked.selection_order.flatten().tolist()
for step in range(1, len(order)):
    nearest = distance[order[:step]].min(dim=0).values
    nearest[order[:step]] = -1
    assert int(nearest.argmax()) == order[step]
tuple(picked.tokens.shape)

# %% [markdown]
# ## Accuracy beside cost
#
# Scores are the papers' own, with where they were read; costs are ours. A star marks settings that
# nothing else beats in both.

# %%
best = frontier("llava-1.5-7b", A100, benchmark="textvqa", calibration="none")
best.to_frame()[
    ["label", "table", "visual_tokens", "training", "score", "retained", "time_s", "evidence"]
]

# %%
plot_frontier(best)
