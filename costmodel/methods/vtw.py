"""VTW: at language-model layer K drop every image token.

Source: Lin et al. 2024 (arXiv 2405.05803) and lzhxmu/VTW. Layers 0..K-1 see and cache every token, the
others text only. No score, no FLOPs, one copy of the text. The program's K is 15 in its cache code, 16
in its 7B command and 20 for the 13B model; here 16, and 20 for 40 layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.methods.fastv import sequence_gather
from costmodel.methods.pieces import passes
from costmodel.methods.registry import MethodCost, MethodPlan
from costmodel.schedule import LayerSpan
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.registry import MethodRequest

LAYER = 16
#: Layers of the language model -> K of the program's command for it.
PUBLISHED_LAYERS = {32: 16, 40: 20}


def _plan(request: MethodRequest) -> MethodPlan:
    text, n = request.model.text, request.visual_tokens
    if request.keep is not None:
        raise InvalidInputError(
            f"vtw takes no keep ({request.keep!r} was given): it drops every image token at its "
            "layer; set layer= instead"
        )
    layer = request.layer
    if layer is None:
        layer = PUBLISHED_LAYERS.get(text.num_layers, LAYER)
        if layer >= text.num_layers:
            raise InvalidInputError(
                f"vtw's published layers are 16 of 32 and 20 of 40, but {request.model.name} has "
                f"{text.num_layers}; give layer= from 0 to {text.num_layers - 1}"
            )
    runs = (n > 0) * 1
    s = request.batch_size * (request.text_tokens + n)
    indices = passes(
        "indices", s, request.precision.text, reads=2, writes=2, kernels=4, flops=0, count=runs
    )
    spans = (LayerSpan(layer, n), LayerSpan(text.num_layers - layer, n * 0))
    ops = (indices, *sequence_gather(request, n * 0, runs))
    return MethodPlan(spans, request.projected_tokens, None, ops)


METHODS = {
    "vtw": MethodCost(
        name="vtw",
        schedule=_plan,
        place="llm-layer",
        summary="at LLM layer K drop every image token",
        formula="n tokens in layers 0..K-1, none from K on; no FLOPs",
        complexity="O(text d) once",
        source="Lin et al. 2024, VTW, arXiv 2405.05803; lzhxmu/VTW",
        default_keep="none: every image token goes",
        published=("K=16 for 7B (15 in the cache code)", "K=20 for 13B"),
        takes_layer=True,
    )
}
