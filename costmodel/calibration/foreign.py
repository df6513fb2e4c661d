"""Public tables of measured ops in their own layouts, recognised by their columns.

| layout | recognised by | unit | becomes |
|---|---|---|---|
| AIConfigurator, products | gemm_dtype, m, n, k, latency | ms | gemm |
| AIConfigurator, attention | attn_dtype, batch_size, isl, num_heads, latency | ms | attention |
| Vidur, one layer by tokens | time_stats.*.median, num_tokens, n_embd | ms | gemm and streams |
| LLMServingSim, one layer by tokens | layer, tokens (or sequences), time_us | us | gemm and streams |
| LLMServingSim, attention | prefill_chunk, kv_prefill, n_decode, kv_decode, time_us | us | attention |

LLMServingSim's files do not hold the model's widths: they come from a model that is named, or from columns
that were added (hidden_size, intermediate_size, heads, kv_heads, head_dim; or n and k of each product).
Any other table needs `time_s`, or its unit: `time_ms`, `time_us` or `time_ns`, or a column `time`
with a column `time_unit` or the option of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmodel.calibration.columns import numbers
from hardware_specs.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from costmodel.models import TextConfig

#: Seconds of each unit a table may state.
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ELEMENT = 2


def in_seconds(
    name: str,
    frame: pd.DataFrame,
    time_unit: str | None = None,
    text: TextConfig | None = None,
) -> pd.DataFrame:
    """Return a table in the project's columns; what was understood is in `attrs["understood"]`.

    Args:
        name: what the table is called in messages.
        frame: the table as it was read; one with `time_s` is returned as it is.
        time_unit: the unit of a column `time`, which a table's own column `time_unit` overrules.
        text: the language model whose layers were timed, for layouts that do not hold its widths.

    Raises:
        CalibrationError: an unknown unit, or a known layout without the widths it needs.
    """
    if time_unit is not None and time_unit not in UNITS:
        raise CalibrationError(f"unknown time unit {time_unit!r}; there is: {', '.join(UNITS)}")
    columns = set(frame.columns)
    if "time_s" in columns:
        return frame
    for layout, needed, unit, read in _LAYOUTS:
        if columns.issuperset(needed):
            if text is not None and read in (_servingsim_layer, _servingsim_attention):
                frame = frame.assign(**_widths(text))
            found = read(name, frame)
            return _understood(name, frame, found, layout, unit)
    for unit in ("ms", "us", "ns"):
        if f"time_{unit}" in columns:
            found = frame.assign(time_s=numbers(name, frame[f"time_{unit}"]) * UNITS[unit])
            return _understood(name, frame, found, f"the column time_{unit}", unit)
    if "time" in columns and ("time_unit" in columns or time_unit is not None):
        stated = frame.get("time_unit")
        units = [time_unit] * len(frame) if stated is None else stated.map(str).tolist()
        wrong = [place for place, unit in enumerate(units) if unit not in UNITS]
        if wrong:
            raise CalibrationError(
                f"{name}: {len(wrong)} of {len(units)} values of 'time_unit' are no unit (first in "
                f"row {wrong[0]}: {units[wrong[0]]!r:.40}); there is: {', '.join(UNITS)}"
            )
        seconds = numbers(name, frame["time"]) * [UNITS[str(unit)] for unit in units]
        found = frame.assign(time_s=seconds)
        said = ", ".join(dict.fromkeys(map(str, units)))
        return _understood(name, frame, found, "the column time", said)
    return frame


def _understood(
    name: str, frame: pd.DataFrame, found: pd.DataFrame, layout: str, unit: str
) -> pd.DataFrame:
    classes = ""
    if "op_class" in found:
        counts = found["op_class"].astype(str).value_counts(sort=False)
        classes = ": " + ", ".join(f"{count} {each}" for each, count in counts.items())
    found.attrs["name"] = name
    found.attrs["understood"] = (
        f"{name} was read as {layout}, times in {unit}: {len(frame)} rows became {len(found)} "
        f"points{classes}"
    )
    return found


def _aiconfigurator_gemm(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    found = frame[[c for c in ("m", "n", "k", "device") if c in frame]].copy()
    return found.assign(
        op_class="gemm", dtype=frame["gemm_dtype"], time_s=numbers(name, frame["latency"]) * 1e-3
    )


def _aiconfigurator_attention(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    import numpy as np

    # Keys and values stored in another dtype than the queries run another kernel.
    if "kv_cache_dtype" in frame:
        frame = frame[frame["kv_cache_dtype"].astype(str) == frame["attn_dtype"].astype(str)]
    classes = {
        "context_attention": "attention_prefill",
        "generation_attention": "attention_decode",
        "encoder_attention": "attention_encoder",
    }
    names = frame["op_name"].map(str)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise CalibrationError(
            f"{name}: no op class for the op_name {unknown[0]!r:.40}; there is: {', '.join(classes)}"
        )
    op_class = names.map(classes)
    decode = op_class == "attention_decode"
    length = numbers(name, frame["isl"])
    step = numbers(name, frame["step"]) if "step" in frame else np.zeros(len(frame))
    heads = numbers(name, frame["num_heads"])
    kv_heads = numbers(name, frame["num_key_value_heads"])
    found = frame[[c for c in ("batch_size", "head_dim", "device") if c in frame]].copy()
    return found.assign(
        op_class=op_class,
        dtype=frame["attn_dtype"],
        seq_len=np.where(decode, 1.0, length),
        kv_len=length + step,
        heads=heads,
        # The layout writes 0 where each query head has keys of its own.
        kv_heads=np.where(kv_heads == 0, heads, kv_heads),
        causal=(op_class == "attention_prefill").astype(float),
        time_s=numbers(name, frame["latency"]) * 1e-3,
    )


def _vidur(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    def column(each: str) -> pd.Series:
        return pd.Series(numbers(name, frame[each]), index=frame.index)

    tokens, width, inner = column("num_tokens"), column("n_embd"), column("n_expanded_embd")
    heads, kv_heads = column("n_head"), column("n_kv_head")
    parts = column("num_tensor_parallel_workers")
    gated = frame["use_gated_mlp"].map(lambda cell: str(cell).strip().lower() in ("true", "1"))
    dim = width / heads
    # n and k of each product, and the values that each other op moves per token.
    products = {
        "attn_pre_proj": ((heads + 2 * kv_heads) * dim / parts, width),
        "attn_post_proj": (width, heads * dim / parts),
        "mlp_up_proj": ((1 + gated) * inner / parts, width),
        "mlp_down_proj": (width, inner / parts),
    }
    streams = {
        "input_layernorm": ("norm", 2 * width),
        "post_attention_layernorm": ("norm", 2 * width),
        "attn_rope": ("rope", 2 * (heads + kv_heads) * dim / parts),
        "mlp_act": ("activation", (2 + gated) * inner / parts),
        "add": ("residual", 3 * width),
        "emb": ("embedding", 2 * width),
    }
    tables = []
    for op in (*products, *streams):
        time = f"time_stats.{op}.median"
        if time not in frame:
            continue
        part = pd.DataFrame({"time_s": numbers(name, frame[time]) * 1e-3, "dtype": "fp16"})
        if op in products:
            n, k = products[op]
            part = part.assign(op_class="gemm", m=tokens.values, n=n.values, k=k.values)
        else:
            op_class, values = streams[op]
            part = part.assign(op_class=op_class, bytes=(tokens * values * _ELEMENT).values)
        # An op that a model does not have was not timed.
        tables.append(part[part["time_s"].notna()])
    if not tables:
        raise CalibrationError(f"{name}: none of its time_stats is of an op known here")
    found = pd.concat(tables, ignore_index=True)
    if "device" in frame and frame["device"].nunique(dropna=False) == 1:
        found["device"] = frame["device"].iloc[0]
    return found


def _widths(text: TextConfig) -> dict[str, int]:
    return {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "heads": text.num_heads,
        "kv_heads": text.num_kv_heads,
        "head_dim": text.head_dim,
        "vocab_size": text.vocab_size,
    }


def _widths_in(name: str, frame: pd.DataFrame, *needed: str) -> list[Any]:
    """Return the model's widths that a table's columns say, each shape (rows,)."""
    missing = [each for each in needed if each not in frame]
    if missing:
        raise CalibrationError(
            f"{name} was read as LLMServingSim's layout, {len(frame)} rows with times in us, but it "
            f"does not say how wide the model is: name the model whose layers were timed (model=, "
            f"--model), or add the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
        )
    return [numbers(name, frame[each]) for each in needed]


def _servingsim_layer(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Read what the layers' names tell, as vLLM runs them.

    `layernorm` averages calls with and without the residual's add, and `sampler` is no op of ours: both
    are left out.
    """
    import pandas as pd

    rows = numbers(name, frame["tokens" if "tokens" in frame else "sequences"])
    time_s = numbers(name, frame["time_us"]) * 1e-6
    if {"n", "k"} <= set(frame.columns):
        found = frame.drop(columns="tokens", errors="ignore").assign(m=rows, time_s=time_s)
        # Layers without n and k are no products.
        products: pd.DataFrame = found[frame["n"].notna() & frame["k"].notna()]
        return products
    d, f, h, kv, e = _widths_in(
        name, frame, "hidden_size", "intermediate_size", "heads", "kv_heads", "head_dim"
    )
    vocabulary = numbers(name, frame["vocab_size"]) if "vocab_size" in frame else None
    products_of = {
        "qkv_proj": ((h + 2 * kv) * e, d),
        "o_proj": (d, h * e),
        "gate_up_proj": (2 * f, d),
        "down_proj": (d, f),
        "lm_head": (vocabulary, d),
    }
    streams = {
        "final_layernorm": ("norm", 4 * d),
        "act_fn": ("activation", 3 * f),
        "rotary_emb": ("rope", 2 * (h + kv) * e),
        "embedding": ("embedding", 2 * d),
    }
    kept = [each for each in ("dtype", "device") if each in frame]
    base = frame[kept].assign(time_s=time_s)
    layer = frame["layer"].map(str)
    tables = []
    for op, (n, k) in products_of.items():
        if n is not None:
            tables.append(base.assign(op_class="gemm", m=rows, n=n, k=k)[layer == op])
    for op, (op_class, values) in streams.items():
        tables.append(base.assign(op_class=op_class, bytes=rows * values * _ELEMENT)[layer == op])
    found = pd.concat([each for each in tables if len(each)] or tables[:1], ignore_index=True)
    if not len(found):
        raise CalibrationError(
            f"{name}: none of its layers is known here; there is: {', '.join((*products_of, *streams))}"
        )
    return found


def _servingsim_attention(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    import numpy as np

    _widths_in(name, frame, "heads", "kv_heads", "head_dim")
    chunk, before = numbers(name, frame["prefill_chunk"]), numbers(name, frame["kv_prefill"])
    sequences, context = numbers(name, frame["n_decode"]), numbers(name, frame["kv_decode"])
    # A step that prefills and decodes at once is no single op.
    prefill, decode = (chunk > 0) & (sequences == 0), (chunk == 0) & (sequences > 0)
    found = frame.assign(
        op_class=np.where(prefill, "attention_prefill", "attention_decode"),
        batch_size=np.where(prefill, 1.0, sequences),
        seq_len=np.where(prefill, chunk, 1.0),
        kv_len=np.where(prefill, before + chunk, context),
        causal=prefill.astype(float),
        time_s=numbers(name, frame["time_us"]) * 1e-6,
    )
    kept: pd.DataFrame = found[prefill | decode]
    return kept


#: (what it is called, the columns that tell it, its unit, what reads it).
_LAYOUTS: tuple[tuple[str, tuple[str, ...], str, Callable[[str, pd.DataFrame], pd.DataFrame]], ...]
_LAYOUTS = (
    (
        "AIConfigurator's products",
        ("gemm_dtype", "m", "n", "k", "latency"),
        "ms",
        _aiconfigurator_gemm,
    ),
    (
        "AIConfigurator's attention",
        (
            "attn_dtype", "op_name", "batch_size", "isl", "num_heads", "num_key_value_heads",
            "head_dim", "latency",
        ),
        "ms",
        _aiconfigurator_attention,
    ),
    (
        "Vidur's layer",
        (
            "time_stats.mlp_up_proj.median", "num_tokens", "n_embd", "n_expanded_embd", "n_head",
            "n_kv_head", "use_gated_mlp", "num_tensor_parallel_workers",
        ),
        "ms",
        _vidur,
    ),
    ("LLMServingSim's layer", ("layer", "tokens", "time_us"), "us", _servingsim_layer),
    ("LLMServingSim's layer", ("layer", "sequences", "time_us"), "us", _servingsim_layer),
    (
        "LLMServingSim's attention",
        ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
        "us",
        _servingsim_attention,
    ),
)  # fmt: skip
