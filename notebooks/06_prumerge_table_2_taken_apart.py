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
# # PruMerge's Table 2, taken apart
#
# Table 2 of the PruMerge paper (arXiv 2403.15388) is the best known price list of visual tokens: LLaVA-1.5
# with 7 and 13 billion parameters, in 16 and 4 bits, on a V100, with all 576 visual tokens and with 40. It
# says that pruning makes the FLOPs ten times fewer. It also says that 4-bit arithmetic is *slower* than
# 16-bit, and that a V100 of 32 GB holds 41.6 GB. This notebook asks each cell where it comes from.

# %%
import matplotlib.pyplot as plt
import pandas as pd

from costmodel import estimate
from costmodel.plots.style import BLUE, GREEN, GREY, STYLE, VERMILLION
from costmodel.reproduce import reproduce

plt.rcParams.update(STYLE)
pd.options.display.float_format = "{:,.3f}".format
table = reproduce("prumerge-table2")
cells = table.to_frame()
order = ["FLOPs (TB)", "Prefill time", "Total memory", "Storing activation"]
printed = cells.pivot(index=["model", "precision", "row"], columns="quantity", values="published")
printed.loc[["Vicuna-7B", "Vicuna-13B"], order]

# %% [markdown]
# ## How long were the prompts?
#
# The text says 576 + 40 tokens, and 40 + 40. The numbers come from LLM-Viewer, a roofline calculator, as it
# was in February 2024; its formulas are a convention here. So each cell can be asked: for which prompt
# lengths would that page have shown these digits? One bar per cell.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
for axis, row, used, stated in zip(
    axes, ("LLaVA-1.5", "PruMerge"), (700, 70), (616, 80), strict=True
):
    some = cells[cells.row == row].reset_index()
    axis.barh(
        some.index,
        some.printed_by_last - some.printed_by_first + 1,
        left=some.printed_by_first - 0.5,
        color=BLUE,
    )
    axis.axvline(used, color=GREEN, label=f"{used} tokens")
    axis.axvline(stated, color=VERMILLION, linestyle="--", label=f"{stated} tokens, as stated")
    axis.set_yticks(
        some.index,
        some.model.str.removeprefix("Vicuna-")
        + " "
        + some.precision
        + ", "
        + some.quantity.str.removesuffix(" (TB)"),
    )
    axis.set_xlabel("prompt lengths that print the cell's digits")
    axis.set_title(f"row {row}")
    axis.legend(loc="upper left")
axes[0].invert_yaxis()
plt.show()

# %% [markdown]
# All sixteen cells of the first row agree on 700 tokens and fifteen of the second on 70. The one that does
# not, 0.28 for the FLOPs of 7B in INT4, stands in the row above as another quantity: a slip of the pen. No
# single length explains more, and what the text states explains next to nothing.

# %%
cells.verdict.value_counts().to_frame()

# %% [markdown]
# ## Why is INT4 slower than FP16?
#
# 151.6 ms in 4 bits and 88.6 in 16. Two ways of counting meet. The page's time takes all operations at the
# V100's rate for 8-bit integers, 62 TOPS, half of its 16-bit tensor cores. The FLOPs beside it are those
# of 16 bits divided by four, as if a 4-bit product were a quarter of a product. No device did either: people
# who run 4-bit weights compute in 16 bits, read a quarter of the bytes, and gain in the decode. Our own
# prediction of such a deployment (*corrected*) is on the ideal roofline of a V100:

# %%
time = cells[(cells.quantity == "Prefill time") & (cells.model == "Vicuna-7B")]
time.set_index(["precision", "row"])[["published", "corrected"]].rename(
    columns={"published": "published, ms", "corrected": "corrected, ms"}
)

# %% [markdown]
# ## Where are 41.6 GB?
#
# Nowhere: *total memory* is all bytes that are read and written in one prefill, weights and activations and
# KV cache, each as often as it moves. What a device has to hold is another number, the peak of a timeline:

# %%
memory = cells[(cells.quantity == "Total memory") & (cells.precision == "FP16")]
memory.set_index(["model", "row"])[["published", "corrected", "corrected_footprint_gb"]].rename(
    columns={
        "published": "published, GB",
        "corrected": "moved, GB",
        "corrected_footprint_gb": "held at most, GB",
    }
)

# %% [markdown]
# ## What does PruMerge save, then?
#
# The ratios matter more than the digits. Ours has the vision tower, the projector and the output head in
# it, which no pruning shortens, and the prompts that the text states. (PruMerge's own work, a fraction of a
# per cent, is left out on both sides.)

# %%
rows = []
for (model, precision, quantity), some in cells.groupby(
    ["model", "precision", "quantity"], sort=False
):
    full, pruned = (some[some.row == row].iloc[0] for row in ("LLaVA-1.5", "PruMerge"))
    rows.append(
        {
            "what": f"{model.removeprefix('Vicuna-')} {precision}",
            "quantity": quantity,
            "published": float(full.published) / float(pruned.published),
            "corrected": full.corrected / pruned.corrected,
        }
    )
saved = pd.DataFrame(rows)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for axis, quantity in zip(axes, ("FLOPs (TB)", "Prefill time"), strict=True):
    some = saved[saved.quantity == quantity].reset_index(drop=True)
    axis.bar(some.index - 0.2, some.published, 0.38, color=GREY, label="published")
    axis.bar(some.index + 0.2, some.corrected, 0.38, color=BLUE, label="corrected")
    axis.set_xticks(some.index, some.what)
    axis.set_title({"FLOPs (TB)": "FLOPs"}.get(quantity, "time of the prefill"))
axes[0].set_ylabel("times less with PruMerge")
axes[1].legend()
plt.show()

# %% [markdown]
# Ten times fewer FLOPs become six, and six times less time becomes four. That is still the best bargain in
# the table; it is a different bargain.

# %% [markdown]
# ## A second number
#
# **The first cell by hand**, without any of our code. LLM-Viewer counts, per layer and with one operation
# per multiply and per add, the seven products, the two attention products, softmax (5), two norms (7), two
# residuals (1), the activation (2, with the hidden width), and a head at one operation per multiply-add.

# %%
d, f, h, layers, v = 4096, 11008, 32, 32, 32000


def counted(s):
    layer = 2 * s * (4 * d * d + 3 * d * f) + 4 * s * s * d + 5 * h * s * s
    layer += 2 * 7 * d * s + 2 * d * s + 2 * d * s
    return layers * layer + d * v


print(
    f"{counted(700) / 1e12:.4f} T at 700 tokens, {counted(70) / 1e12:.4f} T at 70; printed: 9.3, 0.91"
)
assert f"{counted(700) / 1e12:.1f}" == "9.3"
assert f"{counted(70) / 1e12:.2f}" == "0.91"
assert f"{counted(616) / 1e12:.1f}" != "9.3"

# %% [markdown]
# **The corrected FLOPs by hand.** Tower, projector, 32 layers and the head over 616 tokens, as PyTorch counts
# them: CLIP's 24 layers over 577 patches with an FFN of four widths (the last layer runs, though nobody reads
# it), behind a product that cuts the picture into patches of 14 x 14 pixels.

# %%
own = estimate("llava-1.5-7b", "nvidia-v100-pcie-32gb", calibration="none")
w, p = 1024, 577
tower = 2 * 576 * (3 * 14 * 14) * w + 24 * (2 * p * 12 * w * w + 4 * p * p * w)
projector = 2 * 576 * (w * d + d * d)
language = layers * (2 * 616 * (4 * d * d + 3 * d * f) + 4 * 616**2 * d) + 2 * d * 32064
print(
    f"{(tower + projector + language) / 1e12:.3f} TFLOP by hand, {own.totals.flops / 1e12:.3f} by the model"
)
assert tower + projector + language == own.totals.flops
