"""Named weight formats, with every byte that is kept: elements, scales, zero points, scales of scales.

A row says what the library that makes the format stores and which modules it quantises when nothing
else is asked for. Sources are the libraries' own storage code; file sizes of public checkpoints agree
(Llama-2-7B: `q4-k-m` 4.081 GB, of which 0.0007 GB are the tokeniser and other metadata).

>>> FORMATS["nf4"].text.stored_bytes(4096, 4096)  # 4 bits, and one fp32 absmax per 64 weights
9437184.0
"""

from __future__ import annotations

from typing import NamedTuple

from costmodel.precision.numerics import Numerics, Scale, both_narrow, weight_only


class Format(NamedTuple):
    """One named format.

    Attributes:
        text: numerics of the modules that are quantised.
        modules: which of `vision`, `projector` and `text` those are.
        source: where the bytes and the modules come from.
        lm_head: of the output head; None leaves it unquantised.
        embedding: of the token embedding; None leaves it unquantised.
    """

    text: Numerics
    modules: tuple[str, ...]
    source: str
    lm_head: Numerics | None = None
    embedding: Numerics | None = None


def _k_quant(name: str, bits: float) -> Format:
    """One of llama.cpp's mixtures: half of the layers keep `v_proj` and `down_proj` in Q6_K.

    `use_more_bits` takes the first and the last eighth of the layers and every third between, which is
    half of them for 24, 26, 28, 32, 36, 40, 48 and 80 layers. Bytes are the mean over layers; the head
    is Q6_K, the embedding as the rest.
    """
    q6 = weight_only(name, 210 * 8 / 256, ())
    base = weight_only(name, bits, ())
    mean = weight_only(name, (bits + 8 * q6.weight_bytes) / 2, ())
    text = base._replace(products=(("v_proj", mean), ("down_proj", mean)))
    return Format(
        text,
        ("text",),
        "llama.cpp: ggml-common.h (block_q4_K 144 B, block_q5_K 176 B, block_q6_K 210 B per 256 "
        "weights) and llama_tensor_get_type of llama-quant.cpp; the tower's mmproj file is F16",
        lm_head=q6,
        embedding=base,
    )


#: A quantiser of linear layers that takes all but the head when it is told nothing.
_EVERYWHERE = ("vision", "projector", "text")
_BNB = (
    "bitsandbytes functional.quantize_4bit and nn.Linear4bit; transformers replaces every linear layer "
    "but the head (get_keys_to_not_convert)"
)
_Q8 = weight_only("q8-0", 8.5, ())

FORMATS: dict[str, Format] = {
    "awq": Format(
        weight_only("awq", 4, (Scale(2, 128), Scale(0.5, 128))),
        ("text",),
        "AutoAWQ WQLinear_GEMM: qweight 4 bits, scales fp16 and qzeros 4 bits per group of 128; its "
        "quantiser walks the decoder's layers alone",
    ),
    "gptq": Format(
        weight_only("gptq", 4, (Scale(2, 128),)),
        ("text",),
        "GPTQModel, symmetric and unordered: qweight 4 bits, scales fp16 per group of 128; the file's "
        "qzeros are one constant and its g_idx is i // 128 then, and serving kernels keep neither",
    ),
    "nf4": Format(weight_only("nf4", 4, (Scale(4, run=64),)), _EVERYWHERE, _BNB),
    "nf4-double": Format(
        weight_only("nf4-double", 4, (Scale(1, run=64), Scale(4, run=64 * 256), Scale(4, 0, 0))),
        _EVERYWHERE,
        _BNB + "; compress_statistics: absmax in 8 bits, one fp32 per 256 of them and one offset",
    ),
    "int8-bnb": Format(
        both_narrow("int8-bnb", 8, (Scale(4),), "int8", "w8a8"),
        _EVERYWHERE,
        "bitsandbytes nn.Linear8bitLt: CB int8 and SCB, one fp32 per output",
    ),
    "fp8-block": Format(
        both_narrow("fp8-block", 8, (Scale(4, 128, 128),), "fp8", "fp8-block"),
        _EVERYWHERE,
        "transformers integrations/finegrained_fp8.py FP8Linear: weight_scale_inv fp32 per 128 x 128",
    ),
    "nvfp4": Format(
        both_narrow("nvfp4", 4, (Scale(1, 16), Scale(4, 0, 0)), "fp4", "fp4"),
        ("text",),
        "compressed-tensors nvfp4-pack-quantized: E2M1, one FP8 scale per 16, one fp32 per matrix; "
        "transformers takes layers without bias alone, which leaves CLIP and the projector out",
    ),
    "mxfp4": Format(
        weight_only("mxfp4", 4, (Scale(1, 32),)),
        ("text",),
        "OCP Microscaling 1.0: E2M1, one E8M0 scale per 32; transformers multiplies in 16 bits",
    ),
    "q4-k-m": _k_quant("q4-k-m", 144 * 8 / 256),
    "q5-k-m": _k_quant("q5-k-m", 176 * 8 / 256),
    "q8-0": Format(
        _Q8, ("text",), "llama.cpp ggml-common.h: block_q8_0 34 B per 32 weights, head and embedding too",
        lm_head=_Q8, embedding=_Q8,
    ),
}  # fmt: skip
