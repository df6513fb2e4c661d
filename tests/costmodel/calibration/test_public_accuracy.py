"""Accuracy on public measurements that the fits did not see; the marks are stated in docs."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.calibration import Calibration, fit_calibration
from costmodel.calibration.curves import MODEL_ROWS
from costmodel.calibration.dtypes import canonical
from costmodel.calibration.intervals import spread_at
from costmodel.calibration.pricing import Pricer
from costmodel.calibration.regression import fit, law_of
from costmodel.calibration.tables import group_points
from costmodel.uncertainty import errors_of
from hardware_specs import get_hardware

A100, H100 = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb"
VLLM, TRT = "vLLM/SGLang", "TensorRT-LLM"
#: Token counts of the layer's calibration; the benchmark script says why these.
LAYER_ROWS = (64, 128, 160, 256, 384, 512, 768, 1280, 2048, 4096)


def mape(predicted, measured):
    return float(np.mean(np.abs(predicted / measured - 1)))


@pytest.fixture(scope="module")
def gemms(public, public_module):
    def of(hardware, dtype, source):
        frame = public_module.gemms(public, hardware, dtype, source)
        return frame, public_module.is_model_shape(frame)

    return of


@pytest.mark.parametrize(
    ("hardware", "dtype", "source", "mark"),
    [
        (A100, "bfloat16", VLLM, 0.085),
        (H100, "bfloat16", VLLM, 0.062),
        (H100, "fp8", VLLM, 0.065),
        (A100, "sq", TRT, 0.08),
        (A100, "int8_wo", TRT, 0.08),
        (A100, "int4_wo", TRT, 0.095),
    ],
)
def test_64_products_of_other_shapes_predict_the_models(gemms, hardware, dtype, source, mark):
    frame, model = gemms(hardware, dtype, source)
    groups, _ = group_points([("", frame)], get_hardware(hardware).device_names)
    (group,) = groups
    found = Calibration.load(hardware).lookup("gemm", group.dtype)
    law = law_of("gemm", group.dtype, found.kernels, Calibration.load(hardware).device)
    smooth = law_of("gemm", group.dtype, "smooth", law.device)
    test = group.take(model & (group.sizes["m"] >= 64))
    pool = group.take(~model)
    errors, plain = [], []
    for seed in range(6):
        sample = pool.take(np.random.default_rng(seed).choice(len(pool), 64, replace=False))
        errors.append(mape(law.time_s(fit(law, sample), test.sizes), test.time_s))
        plain.append(mape(smooth.time_s(fit(smooth, sample), test.sizes), test.time_s))
    assert np.median(errors) <= mark
    assert np.median(errors) < 0.85 * np.median(plain)


@pytest.mark.parametrize(
    ("hardware", "dtype", "mark"),
    [(A100, "bfloat16", 0.05), (H100, "bfloat16", 0.047), (H100, "fp8", 0.05)],
)
def test_16_row_counts_of_the_model_s_matrices_predict_all_others(gemms, hardware, dtype, mark):
    frame, model = gemms(hardware, dtype, VLLM)
    frame = frame[model]
    seen = frame["m"].isin(MODEL_ROWS).to_numpy()
    assert frame[seen]["m"].nunique() == len(MODEL_ROWS) == 16
    calibration = fit_calibration(frame[seen], hardware, resamples=1)
    rest = frame[~seen]
    assert {129, 257, 513} <= set(rest["m"])
    time = calibration.op_time_s(
        "gemm", dtype=canonical(dtype), **{c: rest[c].to_numpy() for c in "mnk"}
    )
    assert mape(time, rest["time_s"]) <= mark
    assert len(calibration.lookup("gemm", canonical(dtype)).shapes) == 7


@pytest.mark.parametrize(("hardware", "dtype"), [(A100, "bfloat16"), (H100, "bfloat16")])
def test_ninety_percent_intervals_cover_about_that_much(gemms, hardware, dtype):
    frame, model = gemms(hardware, dtype, VLLM)
    pool, rest = frame[~model], frame[model & (frame["m"] >= 64)]
    inside = []
    for seed in range(3):
        rows = np.random.default_rng(seed).choice(len(pool), 64, replace=False)
        found = fit_calibration(pool.iloc[rows], hardware, resamples=1)
        time = found.op_time_s("gemm", dtype="bf16", **{c: rest[c].to_numpy() for c in "mnk"})
        low, high = found.op_interval("gemm", "bf16", rows=rest["m"].to_numpy(float))
        inside.append(((rest["time_s"] >= low * time) & (rest["time_s"] <= high * time)).mean())
    assert 0.84 <= np.mean(inside) <= 0.96


@pytest.mark.parametrize(
    ("hardware", "dtype", "source"),
    [(A100, "bfloat16", VLLM), (A100, "sq", TRT), (A100, "int4_wo", TRT), (H100, "fp8", VLLM)],
)
def test_shipped_calibrations_cover_the_public_points(gemms, hardware, dtype, source):
    frame, model = gemms(hardware, dtype, source)
    rest = frame[~model]
    found = Calibration.load(hardware)
    label = canonical(dtype)
    time = found.op_time_s("gemm", dtype=label, **{c: rest[c].to_numpy() for c in "mnk"})
    low, high = found.op_interval("gemm", label, rows=rest["m"].to_numpy(float))
    inside = ((rest["time_s"] >= low * time) & (rest["time_s"] <= high * time)).mean()
    assert 0.84 <= inside <= 0.97


@pytest.fixture(scope="module")
def layer(public, public_module):
    """Predicted and measured seconds of one layer by token count, with the fitted counts."""
    products = public_module.layer_gemms(public)
    streams = public_module.layer_streams(public, embedding=False)
    found = fit_calibration(
        [t[t["m"].isin(LAYER_ROWS)] for t in (products, streams)], A100, resamples=1
    )
    tokens = public.layer["num_tokens"].to_numpy()
    time = sum(
        found.op_time_s("gemm", dtype="fp16", m=tokens, n=n, k=k)
        for n, k in public_module.LAYER_GEMMS.values()
    ) + sum(
        found.op_time_s(op_class, dtype="fp16", bytes=tokens * per_token)
        for op_class, per_token in public_module.LAYER_STREAMS.values()
    )
    columns = [*public_module.LAYER_GEMMS, *public_module.LAYER_STREAMS]
    return tokens, time, public.layer[columns].sum(axis=1).to_numpy()


def test_intervals_of_whole_layers_cover_what_they_say(public, public_module):
    """Nine ops a layer, five classes: fits on 16 token counts at random, the others' sums held out."""
    tables = (
        public_module.layer_gemms(public),
        public_module.layer_streams(public, embedding=False),
    )
    tokens = public.layer["num_tokens"].to_numpy()
    ops = [("gemm", {"m": tokens, "n": n, "k": k}) for n, k in public_module.LAYER_GEMMS.values()]
    ops += [(c, {"bytes": tokens * each}) for c, each in public_module.LAYER_STREAMS.values()]
    columns = [*public_module.LAYER_GEMMS, *public_module.LAYER_STREAMS]
    measured = public.layer[columns].sum(axis=1).to_numpy()
    draws, inside = np.random.default_rng(0), []
    for _ in range(8):
        seen = np.isin(tokens, draws.choice(tokens, 16, replace=False))
        found = fit_calibration([t[t["m"].isin(tokens[seen])] for t in tables], A100, resamples=1)
        terms = []
        for op_class, sizes in ops:
            pricer = Pricer(op_class, "fp16", found.lookup(op_class, "fp16"), found.device)
            time = found.op_time_s(op_class, dtype="fp16", **sizes)
            wide = time * spread_at(tokens, pricer.growth)
            terms.append((pricer.key, pricer.widths, time, wide, wide**2))
        low, high = errors_of(terms).interval(sum(time for _, _, time, _, _ in terms))
        inside.append(((measured >= low) & (measured <= high))[~seen].mean())
    assert 0.85 <= np.mean(inside) <= 0.95


def test_one_layer_from_ten_token_counts(layer):
    tokens, time, measured = layer
    unseen = ~np.isin(tokens, LAYER_ROWS)
    assert len(LAYER_ROWS) == 10
    assert unseen.sum() == 249
    error = np.abs(time / measured - 1)[unseen]
    assert error.mean() < 0.03
    assert error.max() < 0.12


@pytest.mark.parametrize(
    ("before", "after", "step"), [(128, 136, 0.44), (384, 392, 0.27), (768, 776, 0.19)]
)
def test_the_stairs_show(layer, before, after, step):
    tokens, time, measured = layer
    at = {int(t): i for i, t in enumerate(tokens)}
    seen = measured[at[after]] / measured[at[before]] - 1
    predicted = time[at[after]] / time[at[before]] - 1
    assert seen == pytest.approx(step, abs=0.005)
    assert predicted == pytest.approx(step, abs=0.06)
    # Between stairs it is flat: eight tokens later almost nothing is added.
    assert time[at[after + 16]] / time[at[after]] < 1.03


@pytest.mark.parametrize("hardware", [A100, H100])
def test_64_attention_shapes_predict_the_others(public, public_module, hardware):
    frame = public_module.attention(public, hardware)
    (group,), _ = group_points([("", frame)], get_hardware(hardware).device_names)
    family = "flash-128" if hardware == A100 else "flash-192"
    law = law_of(group.op_class, "bf16", family, Calibration.load(hardware).device)
    errors = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(group))
        rest = group.take(order[64:])
        errors.append(mape(law.time_s(fit(law, group.take(order[:64])), rest.sizes), rest.time_s))
    assert np.median(errors) < 0.11
