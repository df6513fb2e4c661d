"""The public measurements behind the shipped calibrations, read into the columns a fit takes.

Sources:
    ai-dynamo/aiconfigurator (Apache-2.0): GEMM times on A100-SXM4-80GB and H100 SXM5 (bf16 and fp8
        through vLLM or SGLang; int4, int8 weight-only and SmoothQuant W8A8 through TensorRT-LLM),
        causal attention on A100, full attention on H100.
    microsoft/vidur (MIT): one Llama-2-7B layer on A100, op by op, against the token count.

The files are not part of this repository; `tests/costmodel/calibration/data` holds a subset as `gemm`,
`attention` and `layer` Parquet files: all row counts of the LLaVA and CLIP weight matrices, 192 random
products of other shapes per device and dtype, 360 random attention shapes per device, and the layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from costmodel.calibration import Calibration

#: Other public measurements, which the repository carries.
EVIDENCE = Path(__file__).parents[1] / "tests" / "costmodel" / "calibration" / "data" / "evidence"
A100, H100 = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb"
AICONFIGURATOR = "ai-dynamo/aiconfigurator"
ATTRIBUTION = (
    "GEMM and attention times: ai-dynamo/aiconfigurator (Apache-2.0). "
    "Pointwise times: microsoft/vidur (MIT)."
)
#: Weight matrices (n, k) of LLaVA-1.5 and its CLIP tower that the public tables hold.
MODEL_SHAPES = (
    (4096, 4096),
    (12288, 4096),
    (5120, 5120),
    (1024, 1024),
    (3072, 1024),
    (4096, 1024),
    (1024, 4096),
)
_QUANTISED = ("int4_wo", "int8_wo", "sq")

#: Llama-2-7B as microsoft/vidur timed it: column -> (n, k), and column -> (class, bytes per token).
LAYER_GEMMS = {
    "attn_pre_proj_s": (12288, 4096),
    "attn_post_proj_s": (4096, 4096),
    "mlp_up_proj_s": (22016, 4096),
    "mlp_down_proj_s": (4096, 11008),
}
LAYER_STREAMS = {
    "input_layernorm_s": ("norm", 2 * 4096 * 2),
    "post_attention_layernorm_s": ("norm", 2 * 4096 * 2),
    "attn_rope_s": ("rope", 4 * 4096 * 2),
    "mlp_act_s": ("activation", 3 * 11008 * 2),
    "add_s": ("residual", 3 * 4096 * 2),
}
LAYER_EMBEDDING = {"emb_s": ("embedding", 2 * 4096 * 2)}


class DeviceTables(NamedTuple):
    """A device whose tables are in one layout: what to fit, and whose it is."""

    ids: tuple[str, ...]
    tables: tuple[str, ...]
    software: str
    date: str
    attribution: str


_DEEPBENCH = "GEMM times: baidu-research/DeepBench at da81ba7 (Apache-2.0)."
_SERVINGSIM = "GEMM and attention times: casys-kaist/LLMServingSim at 5daddb2 (MIT)."
#: DeepBench loops over one product, so weights that fit the L2 cache are read from it; its T4 ran in
#: bursts above its power limit.
DEVICES = (
    DeviceTables(
        ("nvidia-v100-sxm2-16gb", "nvidia-v100-sxm2-32gb"),
        ("gemm_v100_sxm2_deepbench.csv",),
        "cuBLAS of CUDA 10.1",
        "2019",
        _DEEPBENCH,
    ),
    DeviceTables(
        ("nvidia-t4",), ("gemm_t4_deepbench.csv",), "cuBLAS of CUDA 10.1", "2019", _DEEPBENCH
    ),
    DeviceTables(
        ("nvidia-rtx-4090",),
        ("gemm_rtx_4090_llmservingsim.parquet", "attention_rtx_4090_llmservingsim.csv"),
        "vLLM 0.19",
        "",
        _SERVINGSIM,
    ),
    DeviceTables(
        ("nvidia-rtx-a6000",), ("gemm_rtx_a6000_llmservingsim.parquet",), "vLLM", "", _SERVINGSIM
    ),
)


class Public(NamedTuple):
    """The tables: GEMMs, attention, and the layer's ops."""

    gemm: pd.DataFrame
    attention: pd.DataFrame
    layer: pd.DataFrame


def load(folder: Path) -> Public:
    """Return the public tables of a folder, the original files or the carried subset."""
    if (folder / "gemm.parquet").exists():
        return Public(*(pd.read_parquet(folder / f"{name}.parquet") for name in Public._fields))
    a100 = pd.read_parquet(folder / "gemm_a100_sxm4_80gb.parquet").assign(source="vLLM/SGLang")
    h100 = pd.read_parquet(folder / "gemm_h100_sxm5_80gb.parquet").assign(source="vLLM/SGLang")
    quantised = pd.read_parquet(folder / "gemm_a100_sxm4_80gb_quantised.parquet")
    quantised = quantised.assign(source="TensorRT-LLM")
    causal = pd.read_parquet(folder / "attention_prefill_causal_a100_sxm4_80gb.parquet")
    full = pd.read_parquet(folder / "attention_encoder_full_h100_sxm5_80gb.parquet")
    full["kv_heads"] = full["heads"]
    layer = pd.read_csv(folder / "llama2_7b_layer_ops_a100.csv")
    layer = layer[layer["num_tensor_parallel_workers"] == 1]
    columns = ["num_tokens", *LAYER_GEMMS, *LAYER_STREAMS, *LAYER_EMBEDDING]
    return Public(
        gemm=pd.concat([a100, quantised, h100], ignore_index=True),
        attention=pd.concat(
            [causal.assign(causal=True), full.assign(causal=False)], ignore_index=True
        ).assign(dtype="bfloat16"),
        layer=layer[columns].groupby("num_tokens", as_index=False).median(),
    )


def gemms(public: Public, hardware: str, dtype: str, source: str) -> pd.DataFrame:
    """Return one device's GEMMs in one dtype from one source."""
    frame = public.gemm
    device = "A100" if hardware == A100 else "H100"
    rows = frame["device"].str.contains(device) & (frame["source"] == source)
    return named(frame[rows & (frame["dtype"] == dtype)], f"{AICONFIGURATOR} GEMMs ({source})")


#: (hardware, dtype in the tables, source): every set of GEMMs that is fitted.
GEMM_SETS = (
    (A100, "bfloat16", "vLLM/SGLang"),
    (A100, "sq", "TensorRT-LLM"),
    (A100, "int8_wo", "TensorRT-LLM"),
    (A100, "int4_wo", "TensorRT-LLM"),
    (H100, "bfloat16", "vLLM/SGLang"),
    (H100, "fp8", "vLLM/SGLang"),
)


def attention(public: Public, hardware: str) -> pd.DataFrame:
    """Return one device's attention rows; below 16 tokens only the launch is timed."""
    frame = public.attention
    device = "A100" if hardware == A100 else "H100"
    rows = frame["device"].str.contains(device) & (frame["seq_len"] >= 16)
    return named(frame[rows], f"{AICONFIGURATOR} attention")


def layer_gemms(public: Public) -> pd.DataFrame:
    """Return the layer's four products as a GEMM table."""
    parts = [
        pd.DataFrame(
            {"m": public.layer["num_tokens"], "n": n, "k": k, "time_s": public.layer[column]}
        )
        for column, (n, k) in LAYER_GEMMS.items()
    ]
    return named(pd.concat(parts, ignore_index=True).assign(dtype="fp16"), "microsoft/vidur GEMMs")


def layer_streams(public: Public, *, embedding: bool = True) -> pd.DataFrame:
    """Return the layer's other ops as a table of bytes and seconds, one class per kind of op."""
    columns = LAYER_STREAMS | (LAYER_EMBEDDING if embedding else {})
    parts = [
        pd.DataFrame(
            {
                "op_class": op_class,
                "bytes": public.layer["num_tokens"] * per_token,
                "time_s": public.layer[column],
                "m": public.layer["num_tokens"],
            }
        )
        for column, (op_class, per_token) in columns.items()
    ]
    table = pd.concat(parts, ignore_index=True).assign(dtype="fp16")
    return named(table, "microsoft/vidur layer ops")


def is_model_shape(frame: pd.DataFrame) -> np.ndarray:
    """Return which rows are products with a LLaVA or CLIP weight matrix."""
    pairs = set(MODEL_SHAPES)
    return np.array([pair in pairs for pair in zip(frame["n"], frame["k"], strict=True)])


def read(path: Path) -> pd.DataFrame:
    """Return the table in a CSV or Parquet file."""
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def source_of(attribution: str) -> str:
    """Return whose measurements they are: `owner/repository`."""
    return attribution.partition(": ")[2].partition(" at")[0]


def show_held_out(found: Calibration) -> None:
    """Print how well each fitted class predicts points outside its fit."""
    for (op_class, dtype), each in found.classes.items():
        if (held := each.held_out) is not None:
            print(
                f"{found.hardware_id} {op_class} {dtype} {each.kernels}: {each.points} points, held out "
                f"{held.points}: MAPE {held.mape:.1%}, worst {held.worst:.0%}, 90 % interval covers "
                f"{held.coverage:.1%}"
            )


def named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a copy that a fit's provenance calls by name."""
    copy = frame.copy()
    copy.attrs["name"] = name
    return copy
