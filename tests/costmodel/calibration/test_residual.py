"""The residual beside the law: kriging of what the library's choice of kernels adds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from costmodel.calibration import Calibration, fit_calibration
from costmodel.calibration.chosen import ROWS, WIDTHS, chosen_products
from costmodel.calibration.residual import MOST_POINTS, Residual, ResidualSteps
from hardware_specs.errors import InvalidFileError

A100, V100 = "nvidia-a100-sxm4-80gb", "nvidia-v100-sxm2-16gb"
RESIDUAL = Residual((1024.0, 100.0), (4096.0, 1024.0), (4096.0, 4096.0), (0.1, -0.05))


def errors(found, rest):
    time = found.op_time_s("gemm", dtype="bf16", **{c: rest[c].to_numpy() for c in "mnk"})
    return np.abs(time / rest["time_s"] - 1)


def test_it_predicts_other_weight_matrices_better(public, public_module):
    frame = public_module.gemms(public, A100, "bfloat16", "vLLM/SGLang")
    model = public_module.is_model_shape(frame)
    rest = frame[model & (frame["m"] >= 64)]
    found = fit_calibration(frame[~model], A100, resamples=1)
    held = found.lookup("gemm", "bf16")
    assert held.residual is not None
    assert "by weight matrix" in held.held_out.how
    assert errors(found, rest).mean() < 0.94 * errors(without(found), rest).mean()


def without(found):
    classes = {key: replace(each, residual=None) for key, each in found.classes.items()}
    return replace(found, classes=classes)


def test_it_is_the_same_for_numbers_arrays_and_steps():
    shape = (4096.0, 4096.0)
    steps = ResidualSteps(RESIDUAL, *shape, 108)
    rows = np.array([1, 2, 63, 64, 65, 128, 129, 1000, 100_000, 10**8, 0.5, 576.25])
    full = np.ones(len(rows))
    direct = np.exp(RESIDUAL.log_ratio(rows, 4096 * full, 4096 * full, 108))
    assert steps.factor(rows) == pytest.approx(direct, rel=1e-12)
    again = ResidualSteps(RESIDUAL, *shape, 108)
    assert [again.factor(float(m)) for m in rows] == pytest.approx(direct, rel=1e-12)
    # Rows of one step are one point, as the tiles are.
    assert steps.factor(129) == steps.factor(192)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_single_products_and_arrays_of_matrices_cost_the_same(dtype):
    """Tiled and smooth kernels: one matrix by rows, and many matrices at once."""
    pricer = Calibration.load(V100).pricer("gemm", dtype)
    rows = np.array([1.0, 17.0, 64.0, 65.0, 577.0, 5000.0])
    full = np.ones(len(rows))
    many = pricer.time_s(rows, 4096 * full, 1024 * full)
    assert pricer.time_s(rows, 4096, 1024) == pytest.approx(many, rel=1e-9)
    assert [pricer.time_s(m, 4096, 1024) for m in rows.tolist()] == pytest.approx(many, rel=1e-9)


def test_it_fades_far_from_all_points():
    one = np.ones(1)
    near = RESIDUAL.log_ratio(1024 * one, 4096 * one, 4096 * one, 108)
    far = RESIDUAL.log_ratio(one, 64 * one, 2.0**30 * one, 108)
    assert near[0] == pytest.approx(0.1, abs=0.05)
    assert abs(far[0]) < 0.01


def test_a_table_of_one_model_s_matrices_has_curves_instead(public, public_module):
    frame = public_module.gemms(public, A100, "bfloat16", "vLLM/SGLang")
    model = frame[public_module.is_model_shape(frame)]
    held = fit_calibration(model, A100, resamples=1).lookup("gemm", "bf16")
    assert held.residual is None
    assert len(held.shapes) == 7


def test_files_keep_it_and_refuse_what_is_none(tmp_path):
    found = Calibration.load(V100)
    held = found.lookup("gemm", "fp16").residual
    assert 0 < len(held.m) <= MOST_POINTS
    path = tmp_path / "v100.json"
    found.save(path)
    assert Calibration.load(path).lookup("gemm", "fp16").residual == held
    document = found.to_dict()
    at = next(i for i, each in enumerate(document["classes"]) if "residual" in each)
    document["classes"][at]["residual"]["m"][0] = -1.0
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidFileError, match="residual"):
        Calibration.load(path)


def test_chosen_products_lie_on_both_sides_of_steps_and_fill_the_range():
    m, n, k = chosen_products(256).T
    assert set((m % 64).tolist()) == {0, 1}
    assert (m >= ROWS[0]).all()
    assert (m <= ROWS[1] + 1).all()
    assert (np.minimum(n, k) >= WIDTHS[0]).all()
    assert (np.maximum(n, k) <= WIDTHS[1]).all()
    assert not ((n % 128) | (k % 128)).any()
    assert len(np.unique(np.column_stack([m, n, k]), axis=0)) == 256
    # Every eighth of the widths' range holds about an eighth of the products.
    shares = np.histogram(np.log(n), 8, np.log(WIDTHS))[0] / 256
    assert shares == pytest.approx(1 / 8, abs=0.05)
