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
# # Theory meets measurement
#
# FLOPs say that pruning 576 visual tokens to 64 is worth a factor of six. What does an A100 say? This
# notebook holds the calibrated time law against times that other people measured, and explains the
# difference between FLOPs and seconds. It needs no GPU: the measurements lie in the folder `data` beside it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from costmodel import estimate
from costmodel.calibration import Calibration
from costmodel.plots.style import STYLE
from costmodel.reproduce import reproduce

plt.rcParams.update(STYLE)
pd.options.display.float_format = "{:,.3f}".format
A100, H100 = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb"

# %% [markdown]
# ## One layer, every token count
#
# Vidur (microsoft/vidur, MIT) timed the products of one Llama-2-7B layer on an A100 at 259 token counts.
# The shipped calibration never saw them: it was fitted on another project's GEMM table
# (ai-dynamo/aiconfigurator, Apache-2.0). Two measurements of the same device differ by several per cent,
# so this also says how far a calibration travels.

# %%
layer = pd.read_csv("data/vidur-a100-layer.csv")
m = layer.num_tokens.to_numpy()
products = {
    "attn_pre_proj_s": (12288, 4096),
    "attn_post_proj_s": (4096, 4096),
    "mlp_up_proj_s": (22016, 4096),
    "mlp_down_proj_s": (4096, 11008),
}
measured = layer[list(products)].sum(axis=1).to_numpy()
a100 = Calibration.load(A100)
predicted = sum(a100.op_time_s("gemm", dtype="fp16", m=m, n=n, k=k) for n, k in products.values())
weights = sum(n * k for n, k in products.values())
ideal = np.maximum(2 * m * weights / 312e12, 2 * weights / 2.039e12)

figure, axis = plt.subplots(figsize=(7.5, 4))
axis.plot(m, measured * 1e3, ".", color="black", markersize=3, label="measured (Vidur, A100)")
axis.plot(m, predicted * 1e3, "-", color="#0072B2", label="calibrated law (fitted elsewhere)")
axis.plot(m, ideal * 1e3, "--", color="#D55E00", label="datasheet roofline")
axis.set(xlabel="tokens", ylabel="ms", title="products of one Llama-2-7B layer, A100, 16 bit")
axis.set_ylim(0, None)
axis.legend()
figure.tight_layout()

# %%
some = m >= 64
error = np.abs(predicted / measured - 1)[some]
roof = np.abs(ideal / measured - 1)[some]
pd.DataFrame(
    {
        "mean error, %": [100 * error.mean(), 100 * roof.mean()],
        "worst, %": [100 * error.max(), 100 * roof.max()],
    },
    index=["calibrated law", "datasheet roofline"],
)

# %% [markdown]
# The staircase is why no single efficiency can do: eight more tokens can cost nothing, or a whole wave of
# tiles. `docs/calibration.md` has the errors of fits on this very data, and what each term buys.

# %%
steps = [(128, 136), (384, 392), (768, 776)]
at = dict(zip(m.tolist(), zip(measured, predicted, strict=True), strict=True))
pd.DataFrame(
    {
        f"{a} -> {b}": [100 * (at[b][i] / at[a][i] - 1) for i in (0, 1)]
        for a, b in steps
        if a in at and b in at
    },
    index=["measured, %", "predicted, %"],
)

# %% [markdown]
# ## From FLOPs to seconds, step by step
#
# 576 -> 64 visual tokens with 40 text tokens on LLaVA-1.5-7B. Each row adds what the one above leaves out.

# %%
rows = {}
for device in (A100, H100):
    pair = {
        n: estimate("llava-1.5-7b", device, visual_tokens=n, calibration="none") for n in (576, 64)
    }
    law = {
        n: estimate("llava-1.5-7b", device, visual_tokens=n, calibration=device) for n in (576, 64)
    }
    eager = {
        n: estimate(
            "llava-1.5-7b", device, visual_tokens=n, calibration=device, execution="hf-eager"
        )
        for n in (576, 64)
    }

    def ratio(of):
        return of(576) / of(64)

    rows[device] = {
        "language-model FLOPs": ratio(lambda n, p=pair: p[n].stages["prefill"].flops),
        "ideal roofline of the language model": ratio(
            lambda n, p=pair: p[n].stages["prefill"].time_s
        ),
        "calibrated": ratio(lambda n, p=law: p[n].stages["prefill"].time_s),
        "calibrated, eager kernels": ratio(lambda n, p=eager: p[n].stages["prefill"].time_s),
        "with vision tower and projector": ratio(lambda n, p=eager: p[n].totals.ttft_s),
    }
pd.DataFrame(rows)

# %% [markdown]
# **A second number.** The calibrated ratio of the products alone, straight from Vidur's measurements at
# 616 and 104 tokens:

# %%
float(np.interp(616, m, measured) / np.interp(104, m, measured))

# %% [markdown]
# ## What papers measured
#
# No measured time may lie under the roofline at its precision, and no peak memory under the weights. The
# table checks every published measurement the project carries; rows that cannot be what they say are marked.

# %%
published = reproduce("measured")
published.to_frame().verdict.value_counts().to_frame()

# %%
for note in published.notes:
    print("-", note)

# %% [markdown]
# ## The gap, part by part
#
# The same question asked of one machine of our own: one thread of an AMD EPYC, a size-reduced LLaVA-1.5
# (4 layers, an eighth of the width) over twelve visual-token counts, three rounds. The calibration comes
# from micro-benchmarks of single ops alone (`measurements/amd-epyc-2026-11-20/ops.json`); no run of the
# model went into it.

# %%
from profiling import reconcile

result = reconcile("data/amd-epyc-sweep.jsonl", Calibration.load("data/amd-epyc-calibration.json"))
frame = result.to_frame()
total = frame[frame.stage == "total"].groupby("visual_tokens").mean(numeric_only=True)
parts = {
    "ideal_s": "ideal roofline of the language model",
    "efficiency_compute_s": "efficiency, compute",
    "efficiency_memory_s": "efficiency, memory",
    "granularity_s": "kernel granularity",
    "host_s": "launches",
    "left_out_vision_s": "vision tower",
    "left_out_projector_s": "projector",
    "unexplained_s": "unexplained",
}
split = (1e3 * total[list(parts)]).rename(columns=parts)
split["measured, ms"] = 1e3 * total.measured_s
split["predicted, ms"] = 1e3 * total.predicted_s
assert np.allclose(split[list(parts.values())].sum(axis=1), split["measured, ms"])
split

# %% [markdown]
# With all tokens, as a waterfall. The first bar is what FLOPs promise. Most of what follows is products that
# do not reach the processor's peak, then the tower, which FLOPs of the language model leave out; a few
# per cent have no name.

# %%
from profiling.report.figures import reconciliation_figures

reconciliation_figures(result)["waterfall-most-tokens"]

# %% [markdown]
# **A second number.** FLOPs of these runs were counted by torch while they ran; the cost model never saw a
# run, nor its calibration one of the times. Both are held against each other, row by row.

# %%
prefill = frame[frame.stage == "prefill"]
error = (prefill.predicted_s / prefill.measured_s - 1).abs()
assert (frame.measured_flops == frame.predicted_flops).all()
f"prefill: mean error {100 * error.mean():.1f} %, worst {100 * error.max():.1f} %; FLOPs equal on all rows"
