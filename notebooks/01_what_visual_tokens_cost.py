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

# %% [markdown]
# **A second number.** FastV's, in one line: its formula counts one operation per multiply-add, four
# projections, two attention products and two FFN matrices of one layer, over 36 + 576 tokens.

# %%
n, m = 36 + 576, 11008
giga = (4 * n * d * d + 2 * n * n * d + 2 * n * d * m) / 1e9
print(f"{giga:.3f} G a layer; the paper prints 99.3")
assert f"{giga:.1f}" == "99.3"
