"""Whole layers, prompts and tokens that others measured, and the kernels behind them."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from costmodel import estimate
from costmodel.calibration import Calibration
from costmodel.calibration.alignment import alignment_cost

ROOT = Path(__file__).parents[3]
A100, H100 = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb"


@pytest.fixture(scope="module")
def benchmarks():
    """Import a benchmark by its name; they import one another."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module


@pytest.fixture(scope="module")
def evidence(benchmarks):
    return benchmarks("evidence")


def test_eager_pytorch_on_an_a100(evidence):
    """One host number and the concatenation's class: every decode row within 15 %, prefill at 275 W."""
    found = evidence.eager(evidence.EVIDENCE)
    decode = np.concatenate([each.ratios() for each in found if each.stage == "decode"])
    prefill = np.concatenate([each.ratios() for each in found if each.stage == "prefill"])
    assert len(decode) == 39
    assert np.all(np.abs(decode - 1) < 0.15)
    assert np.median(prefill) == pytest.approx(1.0, abs=0.05)


def test_sustained_prefill_on_an_l4(evidence):
    found, tokens = evidence.layers(evidence.EVIDENCE)
    assert 0.9 < np.median(tokens.ratios()) < 1.1
    assert len(found.points) == 69
    assert np.quantile(found.ratios(), 0.1) > 0.85
    assert np.quantile(found.ratios(), 0.9) < 1.15


def test_the_page_is_what_the_data_say(evidence):
    page = (ROOT / "docs" / "evidence.md").read_text()
    for finding in evidence.products(evidence.EVIDENCE):
        assert " | ".join(finding.row()) in page
    assert evidence.table2().splitlines()[0] in page


def test_the_shares_of_products_in_models_are_what_two_sources_say(benchmarks):
    found = Calibration.load(H100)
    shares = benchmarks("in_models").shares(found, Calibration.load(A100))
    stored = found.classes["gemm", "bf16"].parameters["model_share"]
    assert shares == (stored.value, stored.low)


def test_relatives_are_what_the_data_say(benchmarks):
    relatives = benchmarks("calibration_fit_relatives")
    l4, made = (
        each.lookup("gemm", "bf16")
        for each in (
            Calibration.load("nvidia-l4"),
            relatives.assumed_memory(relatives.transferred("nvidia-l4", "nvidia-rtx-4090")),
        )
    )
    assert (l4.standing, l4.values) == ("transferred", made.values)
    assert dict(l4.quantiles) == pytest.approx(dict(made.quantiles), rel=1e-5)
    mi300x = Calibration.load("amd-mi300x").lookup("gemm", "bf16")
    found = relatives.from_traces("amd-mi300x", relatives.EVIDENCE).lookup("gemm", "bf16")
    assert found.values == pytest.approx(mi300x.values, rel=1e-3)
    assert found.held_out.worst < 0.25


def test_odd_lengths_cost_batched_products_alone():
    found = Calibration.load(H100)
    product = {"dtype": "fp16", "m": 5185, "k": 64, "batch": 16}
    # QK^T of 5,185 tokens ran at 51 TFLOP/s.
    odd = found.op_time_s("gemm", n=5185, **product)
    assert 16 * 2 * 5185**2 * 64 / odd == pytest.approx(51e12, rel=0.25)
    assert odd > 2.5 * found.op_time_s("gemm", n=5184, **product)
    # One query reads a vector, and a product with weights has even widths.
    assert found.op_time_s(
        "gemm", dtype="fp16", m=1, n=577, k=64, batch=16
    ) < 1.01 * found.op_time_s("gemm", dtype="fp16", m=1, n=576, k=64, batch=16)
    lengths = np.array([576, 577, 578, 580, 584])
    assert alignment_cost(lengths, 64, 2).tolist() == [1.0, 2.8, 1.3, 1.1, 1.0]
    assert alignment_cost(lengths, 64, 2).tolist() == [
        alignment_cost(int(n), 64, 2) for n in lengths
    ]


def test_small_kernels_of_an_h100_are_measured():
    found = Calibration.load(H100)
    for op_class in ("norm", "rope", "activation", "residual", "embedding"):
        held = found.lookup(op_class, "fp16").held_out
        assert held is not None
        assert held.mape < 0.2
    for op_class in ("cat", "strided", "layer_norm", "norm_chain"):
        assert found.lookup(op_class, "fp16").standing == "transferred"


def test_an_h100_s_products_are_slower_in_models_than_in_their_table():
    device = "nvidia-h100-sxm5-80gb"
    law = Calibration.load(device)
    cost = estimate("llama-2-7b", device, text_tokens=4096, output_tokens=1)
    share = law.lookup("gemm", "bf16").values["model_share"]
    for stage, rows, least, most in (("prefill", 4096, 1.05, 1 / share), ("decode", 1, 1.0, 1.01)):
        down = next(op for op in cost.ops if op.stage == stage and op.name == "down_proj")
        alone = law.op_time_s("gemm", dtype="fp16", m=rows, n=4096, k=11008)
        assert least <= down.time_s / down.count / alone <= most + 1e-9


def test_torch_s_kernels_are_priced_apart_from_an_engine_s():
    given = {"output_tokens": 2, "batch_size": 64, "text_tokens": 600, "execution": "hf-eager"}
    classes = {op.op_class for op in estimate("llava-1.5-7b", A100, **given).ops}
    assert {"cat", "strided", "layer_norm", "norm_chain"} <= classes
    a100 = Calibration.load(A100)
    # Concatenating a cache moves its bytes at a quarter of the bandwidth, a residual add at most of it.
    share = 1e10 / 2.039e12 / a100.op_time_s("cat", dtype="fp16", bytes=1e10)
    assert share == pytest.approx(0.276, rel=0.02)


@pytest.mark.parametrize(
    ("device", "op_class", "dtype", "mape"),
    [("nvidia-v100-sxm2-16gb", "gemm", "fp16", 0.053), ("nvidia-t4", "gemm", "fp16", 0.058),
     ("nvidia-rtx-4090", "gemm", "bf16", 0.037), ("nvidia-rtx-4090", "attention_decode", "bf16", 0.12),
     ("nvidia-rtx-a6000", "gemm", "bf16", 0.065)],
)  # fmt: skip
def test_shipped_devices_predict_points_outside_their_folds(device, op_class, dtype, mape):
    found = Calibration.load(device)
    held = found.lookup(op_class, dtype).held_out
    assert held.mape < mape
    assert 0.85 <= held.coverage <= 0.95
    assert found.attribution
    assert found.kind == "shipped"
