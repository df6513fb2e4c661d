"""What products reach in runs of models of the arithmetic that a device's table shows one by one.

    python benchmarks/in_models.py [--data tests/costmodel/calibration/data/evidence]

Two public sources hold it of an H100, of products of 16-bit numbers:

- products of more than 10 GFLOP in profiler traces: the share with which they take as long together as
  predicted;
- prompts of Llama-2-70B over two cards: the share with which the median of predicted over measured is that
  of the same prompts over two A100s, so that what the law leaves out of both cancels.

`model_share` is their geometric mean; its interval reaches from the lesser to 1.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from calibration_public import A100, EVIDENCE, H100

from costmodel import estimate
from costmodel.calibration import Calibration, Parameter
from costmodel.calibration.parameters import MODEL_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable

#: The op class and dtype whose share it is.
PRODUCTS = ("gemm", "bf16")
#: FLOP below which a launch, and not arithmetic, decides a traced product's time.
LARGE = 1e10
#: Prompts over two cards: the collectives of eight are another term's.
CARDS = 2
NOTE = "; in models "
SOURCES = "profiler traces (AMD-AGI/TraceLens) and prompts (Mutinifni/splitwise-sim)"
LLAMA_2_70B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192,
    "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip


def with_parameter(
    found: Calibration, key: tuple[str, str], name: str, value: Parameter, provenance: str = ""
) -> Calibration:
    """Return a calibration with another value of one parameter, and what is said of it."""
    each = found.classes[key]
    parameters = {**each.parameters, name: value}
    moved = replace(each, parameters=parameters, provenance=provenance or each.provenance)
    return replace(found, classes={**found.classes, key: moved})


def with_share(found: Calibration, share: float, low: float | None = None) -> Calibration:
    """Return a calibration whose 16-bit products reach a share of their arithmetic in models."""
    before = found.classes[PRODUCTS].provenance.partition(NOTE)[0]
    said = f"{before}{NOTE}{share:g} of its arithmetic, from {SOURCES}"
    value = Parameter(share) if low is None else Parameter(share, low, 1.0)
    return with_parameter(found, PRODUCTS, MODEL_SHARE, value, said)


def traces(found: Calibration, data: Path = EVIDENCE) -> float:
    """Return the share that products in profiler traces show."""
    frame = pd.read_csv(data / "products_in_traces.csv")
    flop = 2.0 * frame["m"] * frame["n"] * frame["k"]
    frame = frame[(frame["device"] == found.hardware_id) & (flop > LARGE)]
    measured = (frame["time_s"] * frame["kernels"]).sum()
    sizes = {name: frame[name].to_numpy(dtype=float) for name in "mnk"}
    alone = found.classes[PRODUCTS].values["compute_efficiency"]

    def beside(share: float) -> float:
        # `op_time_s` says what a product takes alone: a slower peak says what it takes in a model.
        law = with_parameter(found, PRODUCTS, "compute_efficiency", Parameter(share * alone))
        time = law.op_time_s("gemm", dtype="bf16", **sizes)
        return float((time * frame["kernels"]).sum() / measured)

    return _share_at(beside, 1.0)


def prompts(found: Calibration, other: Calibration, data: Path = EVIDENCE) -> float:
    """Return the share that prompts show beside those of another device."""
    frame = pd.read_csv(data / "llama2_70b_prefills.csv")
    frame = frame[frame["tp"] == CARDS]

    def ratio(law: Calibration) -> float:
        rows = frame[frame["device"] == law.hardware_id]
        return float(
            np.median(
                [
                    estimate(
                        LLAMA_2_70B, row.device, text_tokens=int(row.prompt_tokens), tp=CARDS,
                        batch_size=int(row.batch), precision="fp16", calibration=law,
                    ).totals.ttft_s / row.prefill_s
                    for row in rows.itertuples()
                ]
            )
        )  # fmt: skip

    return _share_at(lambda share: ratio(with_share(found, share)), ratio(other))


def _share_at(ratio: Callable[[float], float], goal: float) -> float:
    """Return the share in 0.5 to 1 at which a ratio that falls with it meets a goal, by bisection."""
    low, high = 0.5, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) > goal else (low, middle)
    return (low + high) / 2


def shares(found: Calibration, other: Calibration, data: Path = EVIDENCE) -> tuple[float, float]:
    """Return the share and its lower end, of two digits."""
    both = traces(found, data), prompts(found, other, data)
    return round(float(np.sqrt(both[0] * both[1])), 2), round(min(both), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=EVIDENCE)
    data = parser.parse_args().data
    found, other = Calibration.load(H100), Calibration.load(A100)
    print(f"products in profiler traces: {traces(found, data):.3f}")
    print(f"prompts over {CARDS} cards beside an A100's: {prompts(found, other, data):.3f}")
    share, low = shares(found, other, data)
    print(f"model_share {share:g}, from {low:g}")


if __name__ == "__main__":
    main()
