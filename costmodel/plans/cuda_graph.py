"""The plan `cuda-graph`: the kernels of hf-eager replayed, so without host cost."""

from __future__ import annotations

from dataclasses import replace

from costmodel.plans import hf_eager

PLAN = replace(hf_eager.PLAN, name="cuda-graph", label="CUDA graph", host_launches=False)
