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
# # What visual tokens cost
#
# An image becomes 576 visual tokens in LLaVA-1.5, and every layer of the language model carries them.
# This notebook prices that, stage by stage, and meets each estimate with a second number that was
# counted or derived another way. It needs no GPU and no network.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

from costmodel import estimate, load_model, sweep
from costmodel.plots.style import STYLE
from costmodel.questions.break_evens import break_even
from costmodel.reproduce import reproduce

plt.rcParams.update(STYLE)
pd.options.display.float_format = "{:,.3f}".format
pd.options.display.max_rows = 40
A100 = "nvidia-a100-sxm4-80gb"

# %% [markdown]
# ## One request, stage by stage
#
# LLaVA-1.5-7B, one image, 40 text tokens, FP16, on an A100. Times are the ideal roofline
# $\max(F/P,\ B/BW)$ of each op: no real run can be faster.

# %%
cost = estimate("llava-1.5-7b", A100, calibration="none")
stages = pd.DataFrame(
    {
        name: {
            "TFLOP": stage.flops / 1e12,
            "traffic, GB": stage.hbm_bytes / 1e9,
            "kernels": stage.kernels,
            "time, ms": stage.time_s * 1e3,
        }
        for name, stage in [*cost.stages.items(), ("total", cost.totals)]
        if stage.kernels
    }
).T
stages

# %% [markdown]
# **A second number.** PyTorch's own counter runs the model's shapes on the meta device and adds up the
# matrix products, convolutions and attention it meets. It shares no code with the cost model.

# %%
# %%capture
os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"  # meta tensors hold no values to check

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from costmodel.models import config_dict

config = transformers.AutoConfig.for_model(**config_dict("llava-1.5-7b"))
with torch.device("meta"):
    model = transformers.LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


# %%
def counted(run):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def prefill(tokens):
    embeds = torch.empty(1, tokens, 4096, device="meta", dtype=torch.bfloat16)
    hidden = model.model.language_model(inputs_embeds=embeds).last_hidden_state
    return model.lm_head(hidden[:, -1:])


pixels = torch.empty(1, 3, 336, 336, device="meta", dtype=torch.bfloat16)
features = torch.empty(1, 576, 1024, device="meta", dtype=torch.bfloat16)
check = pd.DataFrame(
    {
        "cost model": [cost.stages[s].flops for s in ("vision", "projector", "prefill")],
        "torch counter": [
            counted(lambda: model.model.vision_tower(pixels)),
            counted(lambda: model.model.multi_modal_projector(features)),
            counted(lambda: prefill(616)),
        ],
    },
    index=["vision", "projector", "prefill"],
)
# Some versions of transformers compute the rotary angles as a batched product: 128 FLOP per token.
difference = check["torch counter"] - check["cost model"]
assert set(difference) <= {0, 128 * 616}, difference
check

# %% [markdown]
# ## FLOPs fall with the visual tokens; time falls less
#
# Pruning 576 visual tokens to 64 cuts the language model's FLOPs sixfold. The weights have to be read
# all the same, so the ideal time already falls less, and the vision tower does not shrink at all.

# %%
counts = [1, *range(16, 577, 16)]
devices = {"V100": "nvidia-v100-sxm2-32gb", "A100": A100, "H100": "nvidia-h100-sxm5-80gb"}
given = {"visual_tokens": counts, "stage_columns": True, "calibration": "none"}
curves = sweep("llava-1.5-7b", list(devices.values()), **given)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
for (label, device), style in zip(devices.items(), ("-", "--", ":"), strict=True):
    one = curves[curves.hardware == device]
    right.plot(one.visual_tokens, one.ttft_s * 1e3, style, color="black", label=label)
one = curves[curves.hardware == A100]
left.stackplot(
    one.visual_tokens,
    one.vision_flops / 1e12,
    one.projector_flops / 1e12,
    one.prefill_flops / 1e12,
    labels=["vision tower", "projector", "language model"],
    colors=["#0072B2", "#E69F00", "#999999"],
)
left.set(xlabel="visual tokens", ylabel="TFLOP", title="FLOPs of one prefill, LLaVA-1.5-7B")
right.set(
    xlabel="visual tokens", ylabel="ms", title="ideal time to first token, FP16", ylim=(0, None)
)
left.legend(loc="upper left")
right.legend()
figure.tight_layout()

# %%
few = estimate("llava-1.5-7b", A100, visual_tokens=64, calibration="none")
pd.Series(
    {
        "language-model FLOPs": cost.stages["prefill"].flops / few.stages["prefill"].flops,
        "all FLOPs, vision tower included": cost.totals.flops / few.totals.flops,
        "ideal language-model time": cost.stages["prefill"].time_s / few.stages["prefill"].time_s,
        "ideal time to first token": cost.totals.ttft_s / few.totals.ttft_s,
    },
    name="576 -> 64 visual tokens, times less",
).to_frame()

# %% [markdown]
# **A second number.** By hand: a layer multiplies each of $s$ tokens with $4d^2+3df$ weights and
# attends with $4 s^2 d$ FLOP, so 32 layers take $32\,(2 s (4d^2+3df) + 4 s^2 d)$ and the head
# $2 d v$.

# %%
text = load_model("llava-1.5-7b").text
d, f, layers, v = text.hidden_size, text.intermediate_size, text.num_layers, text.vocab_size


def by_hand(s):
    return layers * (2 * s * (4 * d * d + 3 * d * f) + 4 * s * s * d) + 2 * d * v


assert by_hand(616) == cost.stages["prefill"].flops
assert by_hand(104) == few.stages["prefill"].flops
by_hand(616) / by_hand(104)

# %% [markdown]
# ## Where fewer visual tokens stop helping
#
# Once the weights take longer to read than the tokens to multiply, dropping more of them buys nothing.

# %%
pd.DataFrame(
    {
        label: break_even("llava-1.5-7b", device, calibration="none").to_dict()
        for label, device in devices.items()
    }
).T[["knee_tokens", "floor_s", "marginal_s_at_most"]].assign(
    floor_ms=lambda t: t.floor_s * 1e3, marginal_ms=lambda t: t.marginal_s_at_most * 1e3
).drop(columns=["floor_s", "marginal_s_at_most"])

# %% [markdown]
# ## Table 2 of the PruMerge paper, taken apart
#
# The paper prints FLOPs, prefill time, memory and activations of LLaVA-1.5 on a V100, and says they are
# for 576 + 40 and 40 + 40 tokens. They come from LLM-Viewer as it was in early 2024, and its formulas
# give the printed digits at sequence lengths of 700 and 70.

# %%
table2 = reproduce("prumerge-table2")
shown = [
    "model",
    "precision",
    "row",
    "quantity",
    "published",
    "recomputed",
    "stated",
    "corrected",
    "verdict",
]
cells = table2.to_frame()[shown]
cells.rename(columns={"recomputed": "at 700 / 70", "stated": "at 616 / 80"})

# %%
cells.verdict.value_counts().to_frame()

# %%
for note in table2.notes:
    print("-", note)

# %% [markdown]
# **A second number.** The first FLOPs cell without any of our code: LLM-Viewer counts, per layer and
# with one operation per multiply and per add, the seven products, the two attention products, softmax
# (5), two norms (7), two residuals (1), the activation (2, with the hidden width), and a head at one
# operation per multiply-add.

# %%
S, d, f, h, layers, v = 700, 4096, 11008, 32, 32, 32000
layer = 2 * S * (4 * d * d + 3 * d * f) + 4 * S * S * d + 5 * h * S * S
layer += 2 * 7 * d * S + 2 * d * S + 2 * d * S
operations = layers * layer + d * v
print(f"{operations / 1e12:.4f} T; the paper prints 9.3")
assert f"{operations / 1e12:.1f}" == "9.3"

# %% [markdown]
# ## One model, one image, nine numbers
#
# What papers print as the "TFLOPs" of LLaVA-1.5-7B at 576 visual tokens depends on what they count:
# multiply-adds or FLOPs, two FFN matrices or three, how much text, and whether the vision tower is in.

# %%
ladder = reproduce("flops-ladder").to_frame()
ladder[
    [
        "paper",
        "counts",
        "ffn_matrices",
        "text_tokens",
        "vision",
        "published",
        "unit",
        "recomputed",
        "verdict",
    ]
]
