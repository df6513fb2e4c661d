"""The default suite and `calibrate` on a fake GPU of shapes: full widths, known law, simulated time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.calibration import Calibration
from costmodel.calibration.tables import group_points
from costmodel.models import load_model
from hardware_specs.errors import CalibrationError
from profiling.microbench import suite as suite_module
from profiling.microbench.calibrate import calibrate, check_products, left_out
from profiling.microbench.cases import GEMM_ROWS, SharedLayers, gemm_case, gemm_cases
from profiling.microbench.suite import CUDA_SUITE, run_microbenchmarks
from profiling.microbench.table import OpTable, read_op_table
from profiling.microbench.timing import OpCase, time_case

if TYPE_CHECKING:
    from pathlib import Path

    from fake_cuda import FakeCuda

FEW = replace(CUDA_SUITE, rows=(1,), batches=(1,), budget_s=0.0, total_s=1e6, chosen=32)


@pytest.fixture(autouse=True)
def no_module_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's time inside a module stack is `test_microbench.py`'s matter."""
    monkeypatch.setattr(suite_module, "_module_kernel_seconds", lambda _clock, _device: [1e-5] * 3)


def _table(suite: Any = FEW, **changes: Any) -> OpTable:
    return run_microbenchmarks("cuda", suite=suite, **changes)


def test_a_calibration_gives_the_law_back_and_says_what_more_would_bring(
    gpu_of_shapes: FakeCuda, tmp_path: Path
) -> None:
    """Within its seconds of device time: the default is a minute, a third of one here."""
    assert CUDA_SUITE.total_s == 60.0
    law = gpu_of_shapes.law
    law.overhead_s, law.flop_per_s, law.bytes_per_s = 4e-6, 600e12, 3.6e12
    begun_s = gpu_of_shapes.host_s
    suite = replace(CUDA_SUITE, batches=(1,), total_s=20.0, chosen=64)
    found = calibrate("cuda", suite=suite, table=tmp_path / "ops.json")
    assert gpu_of_shapes.host_s - begun_s <= 20.0
    assert found.hardware_id == "nvidia-h200-sxm-141gb"
    table = read_op_table(tmp_path / "ops.json")
    assert table.ceilings["peak_flop_per_s.bf16"] == pytest.approx(600e12, rel=0.02)
    assert table.ceilings["copy_bytes_per_s"] == pytest.approx(3.6e12, rel=0.02)
    for m, n, k in ((616, 11008, 4096), (1, 4096, 4096)):
        expected = 4e-6 + max(2 * m * n * k / 600e12, 2 * (m * k + n * k + m * n) / 3.6e12)
        time_s = float(found.op_time_s("gemm", dtype="bf16", m=m, n=n, k=k))
        assert time_s == pytest.approx(expected, rel=0.15)
    said = [text for text in found.warnings if "left out after 20 s" in text]
    assert bool(said) == any("used up" in reason for reason in table.skipped.values())


def test_a_suite_ends_with_its_seconds(gpu_of_shapes: FakeCuda) -> None:
    """On a device whose calls take 0.2 ms, two seconds are enough for the ceilings and some products."""
    gpu_of_shapes.law.overhead_s = 0.2e-3
    suite = replace(FEW, total_s=2.0, burn_in_s=0.1, sustained_s=0.0)
    begun_s, done = gpu_of_shapes.host_s, []
    table = _table(suite, on_progress=lambda number, total: done.append((number, total)))
    assert gpu_of_shapes.host_s - begun_s <= 2.0
    assert [number for number, _ in done] == list(range(done[0][1]))
    used_up = [name for name, reason in table.skipped.items() if "2 s were used up" in reason]
    assert len(used_up) > 10
    said = left_out(table, suite)
    assert said is not None
    assert said.startswith(f"{len(used_up)} of {len(used_up) + len(table.rows) - 3} ops left out")


def test_what_a_longer_suite_would_measure_is_named() -> None:
    rows = ({"op_class": "gemm", "time_s": 1.0}, {"op_class": "host", "time_s": 1.0})
    skipped = {
        "gemm bf16 {}": "the suite's 60 s were used up", "norm bf16 {}": "no kernel",
        "copy bf16 {}": "the suite's 60 s were used up",
    }  # fmt: skip
    said = left_out(OpTable(rows=rows, skipped=skipped), CUDA_SUITE)
    assert said is not None
    assert said.startswith("2 of 3 ops left out after 60 s (gemm 1, copy 1); about 120 s more")
    assert left_out(OpTable(rows=rows), CUDA_SUITE) is None


def test_products_that_their_own_held_out_points_refuse_make_no_calibration() -> None:
    """A class that the fit keeps out is assumed, and a calibration needs its products measured."""
    ops = OpTable(rows=({"op_class": "gemm", "dtype": "bf16", "time_s": 1.0},))
    reason = "gemm in bf16: kept out, its held-out error is 80 % on average"
    kept_out = replace(Calibration.load("generic"), warnings=(reason,))
    with pytest.raises(CalibrationError, match="make no calibration: gemm in bf16: kept out"):
        check_products(kept_out, "bf16", ops)
    check_products(kept_out, "bf16", OpTable(rows=()))
    check_products(Calibration.load("nvidia-a100-sxm4-80gb"), "bf16", ops)


def test_rows_of_the_suite(gpu_of_shapes: FakeCuda) -> None:
    """Cold weights, warm clocks, a sustained second, and what models have no op for.

    The clock of the device rises in its first second.
    """
    gpu_of_shapes.law.factor = lambda _number: 4.0 if gpu_of_shapes.host_s < 1.0 else 1.0
    table = _table()
    rows = table.frame()
    assert table.ceilings["peak_flop_per_s.bf16"] == pytest.approx(500e12, rel=0.02)
    squares = rows[(rows["m"] == 8192) & (rows["n"] == 8192)]
    assert list(squares["load"]) == ["burst", "sustained"]
    # The burst found the clocks up as well.
    burst_s, sustained_s = squares["time_s"]
    assert burst_s == pytest.approx(sustained_s, rel=0.02)
    loads = rows[rows["load"] == "sustained"]
    assert set(loads["op_class"]) == {"gemm", "copy", "pointwise"}

    products = rows[(rows["op_class"] == "gemm") & rows["variant"].isna() & (rows["m"] == 1)]
    small = products[(products["n"] == 1024) & (products["k"] == 1024)].iloc[0]
    # 2 MiB of weights, 50 MB of cache.
    assert small["weight_copies"] == small["calls"] == 49
    assert (products["cache"] == "weights-cold").all()
    cold = products["weight_copies"] * products["n"] * products["k"] * 2
    assert (cold > 2 * gpu_of_shapes.cache_bytes).all()
    assert set(rows.loc[rows["op_class"] == "copy", "cache"]) == {"no-weights"}
    assert rows.loc[rows["op_class"] != "host", "graph"].all()

    assert set(rows["variant"].dropna()) == {
        "batched", "strided", "softmax", "rms_norm", "flash", "cudnn", "efficient"
    }  # fmt: skip
    batched = rows[rows["variant"] == "batched"]
    assert set(batched["n"]) == {577, 578, 580, 584}
    assert (batched["flops"] == 2 * 32 * batched["m"] * batched["n"] * 128).all()

    # A fit reads what models run, in a burst, with cold weights; the rest is named.
    groups, remarks = group_points([("ops", rows)], ())
    (fitted,) = [group for group in groups if group.op_class == "gemm"]
    assert (
        len(fitted) == len(products) + 1 + FEW.chosen
    )  # the square product and those of all sizes
    assert any("under a sustained load left out" in text for text in remarks)
    assert any("unlike a model's own left out" in text for text in remarks)


def test_both_sides_of_predicted_edges_are_rows() -> None:
    edges = (64, 128, 129, 192, 256, 257, 512, 513, 768, 1024, 1025, 1536, 2048, 3072, 4096, 8192)
    assert set(edges) | {1, 16, 80, 88, 96, 136, 577} <= set(GEMM_ROWS)


def test_a_chain_that_stays_in_the_cache_says_so(gpu_of_shapes: FakeCuda) -> None:
    """Products of 10 ms: a few of them are a chain, and their weights fit."""
    from profiling.devices.device import open_device

    gpu_of_shapes.law.overhead_s = 10e-3
    row = time_case(gemm_case(8, 1024, 1024, "bf16", "meta"), open_device("cuda"), budget_s=0.0)
    assert (row["weight_copies"], row["cache"]) == (4, "weights-in-cache")


def test_layers_are_made_once_for_all_rows() -> None:
    shape = load_model("llava-1.5-7b")
    cases = list(gemm_cases(shape, "bf16", "meta", (1, 64, 616), max_flops=1e15))
    shared = {id(cell.cell_contents) for case in cases for cell in case.prepare.__closure__ or ()
              if isinstance(cell.cell_contents, SharedLayers)}  # fmt: skip
    assert len(shared) == 1
    layers = SharedLayers()
    first = layers.take(8, 4, "bf16", "meta", 3)
    assert layers.take(8, 4, "bf16", "meta", 3) is first
    layers.take(4, 8, "bf16", "meta", 3)
    assert layers.made == 2


def test_what_cannot_be_captured_is_timed_live_and_says_so(gpu: FakeCuda) -> None:
    from profiling.devices.device import open_device

    asked = torch.ones(1)
    case = OpCase("gemm", "w8a8", {}, 0, 0, 0, lambda count: [lambda: float(asked)] * count)
    device = open_device("cuda")
    assert time_case(case, device, budget_s=0.0)["graph"] is False
    plain = OpCase("copy", "bf16", {}, 0, 0, 0, lambda count: [lambda: asked + 1] * count)
    assert time_case(plain, device, budget_s=0.0)["graph"] is True


def test_int8_products_are_not_printed(gpu: FakeCuda) -> None:
    intmm = pytest.importorskip("torchao.kernel.intmm")
    from profiling.subject.library_workarounds import products_stay_unprinted

    printed = []
    a, b = (torch.ones(32, 32, dtype=torch.int8) for _ in range(2))

    class Watched(torch.Tensor):
        pass

    shown = torch.Tensor.__repr__

    def watching(tensor: Any, **options: Any) -> str:
        printed.append(1)
        return shown(tensor, **options)

    torch.Tensor.__repr__ = watching  # type: ignore[method-assign]
    try:
        intmm.safe_int_mm(a, b)
        outside = len(printed)
        with products_stay_unprinted("w8a8"):
            intmm.safe_int_mm(a, b)
        assert torch.Tensor.__repr__ is watching
    finally:
        torch.Tensor.__repr__ = shown  # type: ignore[method-assign]
    # From torchao 0.19 on nothing is printed either way.
    assert len(printed) == outside <= 1


def test_untypical_products_are_left_out_and_a_lost_context_keeps_the_rows(
    gpu_of_shapes: FakeCuda,
) -> None:
    kept: list[Any] = []
    suite = replace(FEW, burn_in_s=0.0, sustained_s=0.0)
    gpu_of_shapes.lose_after = 8000
    table = _table(suite, on_row=kept.append)
    assert "context was lost" in table.skipped["lost"]
    assert kept == list(table.rows)
    gpu_of_shapes.lose_after = None
    again = _table(suite, known=kept, dtypes=["bf16", "w8a16"])
    assert list(again.rows[: len(kept)]) == kept
    assert len(again.rows) > len(kept)
    reasons = {reason for name, reason in again.skipped.items() if "w8a16" in name}
    assert len(reasons) == 1
    assert "by construction" in reasons.pop()
