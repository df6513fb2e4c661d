"""Which layers slide, and how long a prompt may be: what configs say beside a layer's own numbers.

`layer_types` names every layer's kind; where it is missing, all layers slide that have a window, or
(Qwen2) those from `max_window_layers` on, if `use_sliding_window` says so. `transformers` reads its
KV cache off the same keys, whatever the architecture: configuration_qwen2.py, and
`get_layer_types_and_kwargs` of cache_utils.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.models.reading import Section

FULL = "full_attention"
SLIDING = "sliding_attention"
#: `transformers` renames the first on reading.
_KINDS = {"attention": FULL, FULL: FULL, SLIDING: SLIDING}

#: No language model of this kind was trained on shorter texts: Llama's first, 2048 positions.
LEAST_TRAINED = 2048


def read_windows(section: Section, layers: int, *, switched: bool = False) -> tuple[int, ...]:
    """Return the sliding window of every layer in tokens, 0 for layers that see all.

    Raises:
        InvalidFileError: a window, a number of layers or a kind of layer that is none.
    """
    window = None
    first = 0
    if not switched or section.flag("use_sliding_window"):
        if switched or "sliding_window" in section or "sliding_window" in section.defaults:
            window = section.whole("sliding_window", null=True)
        if switched and window is not None and section.values.get("layer_types") is None:
            first = section.whole("max_window_layers", least=0)
    kinds = _layer_types(section, layers)
    if kinds is None:
        first = layers if window is None else first
        kinds = tuple(SLIDING if layer >= first else FULL for layer in range(layers))
    if SLIDING in kinds and window is None:
        raise section.fail(
            "layer_types", "has sliding layers, but the config has no sliding window"
        )
    # The cache of a window of one token is cut to its last 0, which in Python is all of it.
    seen = 0 if window in (None, 1) else window
    return tuple(seen if kind == SLIDING else 0 for kind in kinds)


def _layer_types(section: Section, layers: int) -> tuple[str, ...] | None:
    given: Any = section.values.get("layer_types")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != layers:
        raise section.fail(
            "layer_types", f"must be a list with the kind of each of {layers} layers"
        )
    for kind in given:
        if not isinstance(kind, str) or kind not in _KINDS:
            raise section.fail(
                "layer_types", f"has {kind!r}; this project knows {FULL} and {SLIDING}"
            )
    return tuple(_KINDS[kind] for kind in given)


def read_positions(section: Section) -> int:
    """Return the positions that a model was made for.

    `max_position_embeddings`, but for three kinds of rotary scaling. YaRN stretches
    `original_max_position_embeddings`, which is `max_position_embeddings` where it is not given, by
    its factor; dynamic scaling stretches `max_position_embeddings`. A linear scaling is in
    `max_position_embeddings` already, or is not: a file cannot tell, and the lower number is taken,
    unless it would leave fewer than 2048 positions before the scaling. Llama 3's and LongRoPE's
    always are. `transformers` 5 calls the object `rope_parameters`, and `rope_scaling`, the older
    name, comes first where both are given.

    Raises:
        InvalidFileError: a number of positions or a factor that is none.
    """
    most = 1_000_000_000
    positions: int = section.whole("max_position_embeddings", most=most)
    key = "rope_scaling" if section.values.get("rope_scaling") else "rope_parameters"
    scaling: Any = section.values.get(key)
    # One object for each kind of layer: those that see everything bound the prompt.
    if isinstance(scaling, dict) and isinstance(scaling.get(FULL), dict):
        key, scaling = f"{key}.{FULL}", scaling[FULL]
    if not isinstance(scaling, dict):
        return positions
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind not in ("linear", "dynamic", "yarn"):
        return positions
    factor: Any = scaling.get("factor")
    if kind == "yarn" and factor is None:  # It follows from the two numbers of positions.
        return positions
    if type(factor) not in (int, float) or not 1 <= factor <= 1000:
        raise section.fail(f"{key}.factor", f"must be from 1 to 1000, not {factor!r}")
    if kind == "linear":
        return positions if positions / factor >= LEAST_TRAINED else int(positions * factor)
    name = "original_max_position_embeddings"
    beside: Any = section.values.get(name)
    original = scaling.get(name) if beside is None else beside
    if kind == "dynamic" or original is None:
        original = positions
    if type(original) is not int or not 1 <= original <= most:
        raise section.fail(
            f"{key}.{name}", f"must be a whole number from 1 to {most}, not {original!r}"
        )
    return int(original * factor)
