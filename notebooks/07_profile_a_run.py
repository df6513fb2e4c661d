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
# # Profile a run
#
# What does a model cost on the machine in front of you? This notebook times one, stage by stage, on one
# thread of a CPU, so that it runs anywhere: LLaVA-1.5's shape with two layers and a sixteenth of the width.
# On a GPU everything is the same with `device="cuda"` and no `scale`. The times below are those of the
# machine that ran the page last, and of nobody else's.

# %%
# %%capture
import time

import pandas as pd
import torch
from matplotlib import pyplot as plt

from costmodel import estimate
from costmodel.plots.style import BLUE, ORANGE, PALE, STYLE
from profiling import Options, StopRule, WarmUpRule, build_model, profile

plt.rcParams.update(STYLE)
pd.options.display.float_format = "{:,.2f}".format
SHAPE = "layers=2,width=1/16"

# %% [markdown]
# ## Measure
#
# A run takes samples until they agree or its time is up, after a warm-up; both rules are yours, and here they
# are set to be quick rather than sure. One record comes
# back for each combination of arguments, in random order, so that a machine that grows warm does not favour
# the last.

# %%
# %%capture
quick = Options(
    rule=StopRule(min_samples=5, max_samples=5, min_time_s=0.0, max_time_s=1.0),
    warm_up=WarmUpRule(min_time_s=0.1, max_time_s=0.5),
)
runs = profile(
    "llava-1.5-7b", device="cpu", dtype="fp32", scale=SHAPE,
    visual_tokens=[576, 256, 64], options=quick,
)  # fmt: skip
runs += profile(
    "llava-1.5-7b", device="cpu", dtype="fp32", scale=SHAPE,
    method=["divprune", "tome"], options=quick,
)  # fmt: skip

# %%
{
    name: runs[0].environment[name]
    for name in ("device_name", "threads", "cpu_capability", "torch", "transformers")
}

# %% [markdown]
# ## What is in a record
#
# Every raw sample of every stage, FLOPs and kernels counted while it ran, memory, the environment, how the
# sampling ended, and for what was not measured the reason. Nothing that was not measured is a number.

# %%
full = next(run for run in runs if run.configuration.visual_tokens == 576)
pd.DataFrame(
    {
        name: {
            "median, ms": 1e3 * stage.median_s,
            "least, ms": 1e3 * min(stage.event_s),
            "most, ms": 1e3 * max(stage.event_s),
            "samples": len(stage.event_s),
            "GFLOP": stage.flops / 1e9,
            "kernels": stage.kernels,
        }
        for name, stage in full.stages.items()
    }
).T

# %%
print("stopped:", full.sampling.stop_reason)
for name, reason in full.why_missing.items():
    print(f"no {name}: {reason}")

# %% [markdown]
# ## Where the time goes
#
# With fewer visual tokens the language model's part shrinks, the tower's does not. `divprune` and `tome` are
# whole methods: what they do themselves is a stage of its own.


# %%
def label(run):
    given = run.configuration
    return given.method if given.method != "none" else f"{given.visual_tokens} tokens"


shown = sorted(runs, key=lambda run: -run.stages["total"].median_s)
figure, axes = plt.subplots(figsize=(7.2, 2.8), layout="constrained")
begin = [0.0] * len(shown)
for stage, colour in (
    ("vision", BLUE),
    ("projector", "black"),
    ("reduction", ORANGE),
    ("prefill", PALE),
):
    width = [1e3 * run.stages[stage].median_s if stage in run.stages else 0 for run in shown]
    axes.barh([label(run) for run in shown], width, left=begin, color=colour, label=stage)
    begin = [b + w for b, w in zip(begin, width, strict=True)]
axes.invert_yaxis()
axes.set_xlabel("ms")
axes.legend(ncols=4, loc="lower right")
axes.set_title("time to the first token, by stage")
plt.show()

# %% [markdown]
# ## Fewer FLOPs, less time?
#
# Both columns are against 576 visual tokens. FLOPs are counted, times the least of the samples; how
# far they disagree is what `reconcile` explains, part by part
# ([notebook 3](03_theory_meets_measurement.ipynb)).

# %%
total = full.stages["total"]
pd.DataFrame(
    {
        label(run): {
            "FLOPs, times fewer": total.flops / run.stages["total"].flops,
            "time, times less": min(total.event_s) / min(run.stages["total"].event_s),
        }
        for run in runs
    }
).T

# %% [markdown]
# ## A second number
#
# **FLOPs**, which the cost model knows before anything runs. It prices the same shape; torch's counter was
# at work in the run. They are equal to the unit, stage by stage, methods included.

# %%
for run in runs:
    given = run.configuration
    cost = estimate(
        given.model, "nvidia-a100-sxm4-80gb", visual_tokens=given.visual_tokens,
        method=given.method, precision="fp32", calibration="none",
    )  # fmt: skip
    for stage in ("vision", "projector", "prefill"):
        if given.method == "none":
            assert run.stages[stage].flops == cost.stages[stage].flops
    assert run.stages["total"].flops == cost.totals.flops, (given, cost.totals.flops)
    print(f"{label(run):11} {cost.totals.flops:>13,.0f} FLOP, counted and computed")

# %% [markdown]
# **Seconds**, with a stopwatch. The model is built a second time, called as anybody would call it, and
# timed around the call: no hooks, no stages, none of our clocks. The least of a few calls stands beside the
# least of the samples above. They differ by what the machine's other programs did in between, and by what
# the wrapper around the call costs.

# %%
torch.set_num_threads(1)
model = build_model(f"llava-1.5-7b@{SHAPE}", dtype="fp32", device="cpu")
words = torch.tensor([[1] + [model.config.image_token_id] * 576 + [2] * 39])
pixels = torch.randn(1, 3, 336, 336)
stopped = []
with torch.no_grad():
    for _ in range(5):
        begun = time.perf_counter()
        model(input_ids=words, pixel_values=pixels, logits_to_keep=1)
        stopped.append(time.perf_counter() - begun)
print(f"stopwatch {1e3 * min(stopped):.1f} ms, profile {1e3 * min(total.event_s):.1f} ms")
