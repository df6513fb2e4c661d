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
# # When the vision tower is the floor
#
# LLaVA-1.5 shows every image to its tower at 336 x 336 pixels, so the tower costs the same whatever is
# pruned behind it, and that is little. Qwen2.5-VL shows an image at its own resolution: at 1344 x 1344 its
# tower reads 9,216 patches. Methods that drop tokens behind the tower leave that work where it is. This
# notebook prices how far such a method can get, and what a smaller image does instead.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from costmodel import compare, estimate, load_model
from costmodel.plots.style import BLUE, GREEN, ORANGE, PALE, STYLE, VERMILLION

plt.rcParams.update(STYLE)
pd.options.display.float_format = "{:,.2f}".format
A100 = "nvidia-a100-sxm4-80gb"
QWEN = "qwen2.5-vl-7b"

# %% [markdown]
# ## From pixels to tokens to time
#
# A patch has 14 x 14 pixels, and the merger makes one token of 2 x 2 patches. Times are those of the A100's
# shipped calibration.

# %%
SIDES = (224, 448, 672, 896, 1120, 1344, 1680, 2016)


def cost_of(side, **more):
    return estimate(QWEN, A100, image_size=(side, side), max_pixels=2**23, **more)


costs = {side: cost_of(side) for side in SIDES}
table = pd.DataFrame(
    {
        side: {
            "visual tokens": cost.inputs["visual_tokens"],
            "tower, TFLOP": cost.stages["vision"].flops / 1e12,
            "prefill, TFLOP": cost.stages["prefill"].flops / 1e12,
            "tower, ms": cost.stages["vision"].time_s * 1e3,
            "prefill, ms": cost.stages["prefill"].time_s * 1e3,
            "first token, ms": cost.totals.ttft_s * 1e3,
            "tower's share": cost.stages["vision"].time_s / cost.totals.ttft_s,
        }
        for side, cost in costs.items()
    }
).T
table.index.name = "side, pixels"
table

# %% [markdown]
# The tower takes a quarter of the time of a small image and more than a third of a large one. Most of its
# layers attend within windows of 8 x 8 patches, whose work grows with the area as everything else does;
# four of its 32 layers attend to the whole image, and their work grows with the area's square.

# %%
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
below = np.zeros(len(SIDES))
for name, colour in (("vision", BLUE), ("projector", ORANGE), ("prefill", PALE)):
    heights = np.array([cost.stages[name].time_s * 1e3 for cost in costs.values()])
    axes.bar([str(side) for side in SIDES], heights, bottom=below, color=colour, label=name)
    below += heights
axes.set_xlabel("side of a square image (pixels)")
axes.set_ylabel("time to the first token (ms)")
axes.legend()
axes.set_title("Qwen2.5-VL-7B on an A100: where the time goes")
plt.show()

# %% [markdown]
# ## How much faster can pruning make it?
#
# `compare` says it for each request: `at_most` is the ratio that no method behind the tower can exceed, since
# tower, text and their decode stay. DivPrune keeps 11 % of the tokens here.

# %%
rows = []
asked = (("llava-1.5-7b", None), *((QWEN, (side, side)) for side in (672, 1344, 2016)))
for model, size in asked:
    more = {} if size is None else {"image_size": size, "max_pixels": 2**23}
    for row in compare(model, A100, methods="divprune", keep=0.11, **more).rows[1:]:
        rows.append(
            {
                "model": model,
                "image": "336 x 336" if size is None else f"{size[0]} x {size[1]}",
                "faster with DivPrune": 1 / row.ratios["ttft"].value,
                "no method is faster than": row.at_most,
            }
        )
pd.DataFrame(rows)

# %% [markdown]
# ## Prune behind the tower, or show a smaller image?
#
# Both leave the language model the same number of tokens. The smaller image saves the tower's work as well;
# what it costs in accuracy is another question, which depends on the task.

# %%
full = costs[1344]
counts, pruned, smaller = [], [], []
for side in (336, 448, 560, 672, 840, 1008, 1176):
    small = cost_of(side)
    tokens = small.inputs["visual_tokens"]
    counts.append(tokens)
    smaller.append(small.totals.ttft_s * 1e3)
    pruned.append(cost_of(1344, method="divprune", keep=tokens).totals.ttft_s * 1e3)

figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
axes.axhline(
    full.totals.ttft_s * 1e3, color="black", linestyle=":", label="1344 x 1344, all 2,304 tokens"
)
axes.plot(counts, pruned, color=VERMILLION, marker="s", label="1344 x 1344, DivPrune")
axes.plot(counts, smaller, color=GREEN, linestyle="--", marker="o", label="a smaller image")
axes.axhline(
    full.stages["vision"].time_s * 1e3, color=BLUE, linestyle="-.", label="the tower at 1344 x 1344"
)
axes.set_ylim(bottom=0)
axes.set_xlabel("visual tokens that enter the language model")
axes.set_ylabel("time to the first token (ms)")
axes.legend()
axes.set_title("The same tokens, two ways")
plt.show()

# %% [markdown]
# ## A second number
#
# **By hand.** The tower's products and attention, written out in lines that share nothing with the cost
# model: a block has four projections (query, key, value, output) and a gated MLP of three; each patch
# attends to the 64 of its window in 28 layers, and to all in four.

# %%
tower = load_model(QWEN).vision
patches, width, inner, layers, everywhere = 9216, 1280, 3420, 32, 4
products = 2 * patches * (4 * width * width + 3 * width * inner) * layers
windows = 4 * patches * 64 * width * (layers - everywhere)
whole = 4 * patches * patches * width * everywhere
embedding = 2 * patches * (3 * 2 * 14 * 14) * width
by_hand = products + windows + whole + embedding
print(f"by hand    {by_hand:,} FLOP")
print(f"cost model {full.stages['vision'].flops:,} FLOP")
assert by_hand == full.stages["vision"].flops
assert tower is not None

# %% [markdown]
# **Published.** NVIDIA's TensorRT Edge-LLM (v0.4.0, a Jetson AGX Thor, NVFP4 weights in the language
# model) timed 51.0 ms for the tower and 25.7 ms for the prefill of one image of 344 tokens under
# Qwen2.5-VL-7B: there the tower is two thirds of the time already, because the language model computes in
# four bits and the tower does not. No calibration of that device ships; the generic law's interval holds the
# tower, and its prefill is too slow (`docs/families.md` has all rows of that source, and what is not
# explained):

# %%
thor = estimate(
    QWEN, "nvidia-jetson-agx-thor-128gb", visual_tokens=344, text_tokens=32,
    precision="text=nvfp4,lm_head=nvfp4",
)  # fmt: skip
tower_s = thor.stages["vision"].time_s + thor.stages["projector"].time_s
prefill_s = thor.stages["prefill"].time_s
print(
    f"predicted: tower {tower_s * 1e3:.1f} ms, prefill {prefill_s * 1e3:.1f} ms: "
    f"tower's share {tower_s / (tower_s + prefill_s):.0%}"
)
print(f"measured:  tower 51.0 ms, prefill 25.7 ms: tower's share {51.0 / (51.0 + 25.7):.0%}")
print(
    f"interval of the predicted tower: {thor.stages['vision'].time_low_s * 1e3:.1f} to "
    f"{thor.stages['vision'].time_high_s * 1e3:.1f} ms"
)
