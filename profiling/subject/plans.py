"""How models run here, in the cost model's words: the execution plan of every stage in every mode."""

from __future__ import annotations

#: Mode -> plan of the language model.
MODE_PLANS = {"eager": "hf-eager", "cuda-graph": "cuda-graph", "compile": "fused"}
#: Tower and projector run op by op in every mode.
TOWER_PLAN = MODE_PLANS["eager"]
#: The plan of the ideal kernels that every mode is held against.
IDEAL_PLAN = MODE_PLANS["compile"]
