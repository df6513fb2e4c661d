"""VTW: at language-model layer K drop every image token.

Source: Lin et al. 2024 (arXiv 2405.05803) and lzhxmu/VTW. Layers 0..K-1 see and cache every token, the
others text only. It needs no score: no FLOPs, one copy of the text. The program's K is 15 in its cache
code, 16 in its 7B command and 20 for the 13B model; here 16, and 20 for 40 layers.
"""

from __future__ import annotations

from costmodel.methods.info import MethodInfo
from costmodel.methods.pieces import passes, sequence_gather
from costmodel.methods.plan import MethodInput, MethodPlan, between_layers
from hardware_specs.errors import InvalidInputError

LAYER = 16
#: Layers of the language model -> K of the program's command for it.
PUBLISHED_LAYERS = {32: 16, 40: 20}


def published_layer(num_layers: int) -> int:
    """Return the layer K that layer=None means: 16 of 32, 20 of 40, else 16.

    Raises:
        InvalidInputError: a language model that has no layer 16.

    >>> published_layer(40)
    20
    """
    layer = PUBLISHED_LAYERS.get(num_layers, LAYER)
    if layer >= num_layers:
        raise InvalidInputError(
            f"vtw at layer {layer}: its published layers are 16 of 32 and 20 of 40, but this language "
            f"model has layers 0 to {num_layers - 1}; give layer= from 0 to {num_layers - 1}"
        )
    return layer


def _plan(given: MethodInput) -> MethodPlan:
    text, n = given.model.text, given.visual_tokens
    layer = published_layer(text.num_layers) if given.layer is None else given.layer
    runs = (n > 0) * 1
    s = given.batch_size * (given.text_tokens + n)
    indices = passes(
        "indices", s, given.precision.text, reads=2, writes=2, kernels=4, flops=0, count=runs
    )
    ops = (indices, *sequence_gather(given, n * 0, runs))
    return between_layers(given, (layer,), (n, n * 0), ops, {})


INFO = MethodInfo(
    name="vtw",
    place="llm-layer",
    source="Lin et al. 2024, VTW, arXiv 2405.05803; lzhxmu/VTW",
    summary="at LLM layer K drop every image token",
    formula="n tokens in layers 0..K-1, none from K on; no FLOPs",
    complexity="O(text d) once",
    schedule=_plan,
    keep_meaning="it keeps no image token from layer K on, by default 16 of 32 and 20 of 40",
    default_text="none: every image token goes",
    rounding=None,
    keep_kind="none",
    takes_layer=True,
    published=("K=16 for 7B (15 in the cache code)", "K=20 for 13B"),
)
