"""Campaigns: order, resuming, running out of memory, interruption, and one that is killed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
import warnings
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.models import load_model
from hardware_specs.errors import (
    DeviceUnavailableError,
    InvalidInputError,
    OutputError,
    UnknownMethodError,
    UnknownModelError,
    UnknownNameError,
    UnsupportedError,
)
from hardware_specs.files.reading import DamagedFileWarning
from profiling.devices.cpu import CpuDevice
from profiling.measuring import campaign as module
from profiling.measuring import point as point_module
from profiling.measuring.campaign import Plan, run_campaign
from profiling.measuring.planning import check, grid, plan
from profiling.measuring.profile import profile
from profiling.records.measurement import TOTAL
from profiling.records.model_names import public_name
from profiling.records.storage import read_measurements

if TYPE_CHECKING:
    from pathlib import Path


def _grid(source: str, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "dtypes": ["fp32"], "device": "cpu", "visual_tokens": [1, 4, 16], "text_tokens": 3,
    }  # fmt: skip
    return grid([source], **{**values, **changes})


def test_a_grid_is_every_combination_once(tiny_source: str) -> None:
    configurations = _grid(tiny_source, batch_sizes=[1, 2, 2], dtypes=["fp32", "float32", "bf16"])
    assert len(configurations) == len(set(configurations)) == 3 * 2 * 2
    with pytest.raises(InvalidInputError, match="no batch_sizes"):
        _grid(tiny_source, batch_sizes=[])


def test_methods_take_token_counts_or_what_they_are_told_to_keep(tiny_source: str) -> None:
    counts = _grid(tiny_source, methods=["none", "divprune"])
    assert [(c.method, c.visual_tokens, c.keep) for c in counts if c.method == "divprune"] == [
        ("divprune", n, None) for n in (1, 4, 16)
    ]
    kept = _grid(tiny_source, methods=["none", "divprune"], keeps=[None, 0.5])
    assert [(c.visual_tokens, c.keep) for c in kept if c.method == "divprune"] == [
        (None, None), (None, 0.5),
    ]  # fmt: skip
    assert sum(c.method == "none" for c in kept) == 3


def test_every_round_visits_everything_in_an_order_of_its_own(tiny_source: str) -> None:
    configurations = _grid(tiny_source, visual_tokens=list(range(1, 13)))
    points = plan(configurations, rounds=3, seed=7)
    orders = [
        [point.configuration.visual_tokens for point in points if point.round == round_]
        for round_ in range(3)
    ]
    assert all(sorted(order) == list(range(1, 13)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
    assert points == plan(configurations, rounds=3, seed=7)
    assert points != plan(configurations, rounds=3, seed=8)
    assert [point.position for point in points] == list(range(36))
    # Rounds are interleaved over configurations, not repeats of one after another.
    assert [point.round for point in points] == sorted(point.round for point in points)
    with pytest.raises(
        InvalidInputError, match="rounds must be a whole number from 1 to 10000, not 0"
    ):
        plan(configurations, rounds=0)
    for wrong in ({"seed": -1}, {"seed": 1.5}, {"threads": 0}, {"threads": "two"}):
        with pytest.raises(InvalidInputError, match=f"{next(iter(wrong))} must be a whole number"):
            Plan(configurations, **wrong).check()


def test_points_that_share_a_model_stay_together(tiny_source: str) -> None:
    points = plan(_grid(tiny_source, dtypes=["fp32", "bf16"]), rounds=2)
    dtypes = [point.configuration.dtype for point in points]
    assert dtypes == ["fp32"] * 6 + ["bf16"] * 6


def test_a_campaign_resumes_where_it_stopped(tiny_source: str, tmp_path: Path, quick: Any) -> None:
    configurations = _grid(tiny_source)
    started = run_campaign(configurations, tmp_path, rounds=2, options=quick)
    first = [next(started) for _ in range(2)]
    started.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(before) == 2
    seen: list[tuple[int, int]] = []
    rest = list(
        run_campaign(
            configurations, tmp_path, rounds=2, options=quick,
            on_plan=lambda total, done: seen.append((total, done)),
        )
    )  # fmt: skip
    assert seen == [(6, 2)]
    assert len(rest) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    records = read_measurements(tmp_path)
    assert Counter((r.configuration, r.round) for r in records) == Counter(
        {
            (replace(c, model=public_name(c.model)), round_): 1
            for c in configurations
            for round_ in (0, 1)
        }
    )
    assert [r.position for r in [*first, *rest]] == list(range(6))
    assert list(run_campaign(configurations, tmp_path, rounds=2, options=quick)) == []
    assert all(record.sampling.rounds == 2 for record in records)


def test_records_hold_everything_that_a_cpu_can_tell(
    tiny_source: str, tmp_path: Path, quick: Any
) -> None:
    (record,) = run_campaign(
        _grid(tiny_source, visual_tokens=[4], output_tokens=2), tmp_path, rounds=1, options=quick
    )
    assert record.status == "ok"
    assert set(record.stages) == {"vision", "projector", "prefill", "decode", TOTAL}
    for stage in record.stages.values():
        assert len(stage.event_s) >= 3
        assert min(stage.event_s) > 0
        assert stage.kernels is not None
        assert stage.kernels > 0
        assert stage.flops is not None
        assert stage.peak_allocated_bytes is not None
        assert stage.resident_bytes is not None
        assert stage.peak_allocated_bytes >= stage.resident_bytes
        assert stage.peak_reserved_bytes is None
    assert {len(steps) for steps in record.stages["decode"].step_event_s} == {2}
    assert record.tokens.visual_llm == 4
    assert record.environment["threads"] == 1
    assert record.environment["device_name"] == record.environment["cpu_name"]
    assert record.energy[0].method == "unavailable"
    assert record.energy[0].energy_j is None
    for name in ("enqueue_s", "peak_reserved_bytes"):
        assert record.why_missing[name]
    # The parts are inside the whole.
    whole = min(record.stages[TOTAL].event_s)
    assert (
        sum(min(record.stages[s].event_s) for s in ("vision", "projector", "prefill"))
        <= whole * 1.05
    )


def test_running_out_of_memory_is_a_result_and_the_campaign_goes_on(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = point_module.take_samples
    errors = iter(
        [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has"),
         RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
         MemoryError()]
    )  # fmt: skip

    def sometimes(execution: Any, *args: Any, **kwargs: Any) -> Any:
        if execution.configuration.visual_tokens == 16:
            raise next(errors)
        return real(execution, *args, **kwargs)

    monkeypatch.setattr(point_module, "take_samples", sometimes)
    records = list(run_campaign(_grid(tiny_source), tmp_path, rounds=3, options=quick))
    assert Counter(record.status for record in records) == {"ok": 6, "out-of-memory": 3}
    lost = [record for record in records if record.status == "out-of-memory"]
    assert all(record.configuration.visual_tokens == 16 for record in lost)
    assert all(record.stages == {} for record in lost)
    assert lost[0].error == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."
    # A point that does not fit is done: asking again does not try again.
    assert list(run_campaign(_grid(tiny_source), tmp_path, rounds=3, options=quick)) == []


def test_a_model_that_does_not_fit_marks_all_its_points(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.build_model

    def build(source: Any, **kwargs: Any) -> Any:
        if kwargs["dtype"] == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(source, **kwargs)

    monkeypatch.setattr(module, "build_model", build)
    configurations = _grid(tiny_source, dtypes=["fp32", "bf16"], visual_tokens=[1, 4])
    records = list(run_campaign(configurations, tmp_path, rounds=1, options=quick))
    assert [(r.configuration.dtype, r.status) for r in records] == [
        ("fp32", "out-of-memory"), ("fp32", "out-of-memory"), ("bf16", "ok"), ("bf16", "ok"),
    ]  # fmt: skip


def test_other_failures_are_recorded_and_a_lost_device_ends_the_campaign(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("shape mismatch\nwith a long story")

    monkeypatch.setattr(point_module, "take_samples", fail)
    (record,) = run_campaign(
        _grid(tiny_source, visual_tokens=[1]), tmp_path / "a", rounds=1, options=quick
    )
    assert (record.status, record.error) == ("failed", "RuntimeError: shape mismatch")

    def lost(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(point_module, "take_samples", lost)
    monkeypatch.setattr(CpuDevice, "is_alive", lambda _self: False)
    with pytest.raises(DeviceUnavailableError, match="start again to go on"):
        list(run_campaign(_grid(tiny_source), tmp_path / "b", rounds=1, options=quick))
    assert list((tmp_path / "b").glob("*.json")) == []


def test_an_interrupt_leaves_what_was_measured(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = point_module.take_samples
    calls = []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(point_module, "take_samples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run_campaign(_grid(tiny_source), tmp_path, rounds=1, options=quick))
    assert len(read_measurements(tmp_path)) == 2
    assert not list(tmp_path.glob(".*.partial"))
    assert len(list(run_campaign(_grid(tiny_source), tmp_path, rounds=1, options=quick))) == 1


def test_a_full_disk_stops_with_what_there_is(
    tiny_source: str, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from hardware_specs.files import writing

    campaign = run_campaign(_grid(tiny_source), tmp_path, rounds=1, options=quick)
    next(campaign)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        next(campaign)
    monkeypatch.undo()
    assert len(read_measurements(tmp_path)) == 1
    assert len(list(run_campaign(_grid(tiny_source), tmp_path, rounds=1, options=quick))) == 2


def test_a_damaged_record_is_set_aside_and_measured_again(
    tiny_source: str, tmp_path: Path, quick: Any
) -> None:
    configurations = _grid(tiny_source, visual_tokens=[1])
    list(run_campaign(configurations, tmp_path, rounds=1, options=quick))
    (path,) = tmp_path.glob("*.json")
    path.write_text(path.read_text()[:200])
    with pytest.warns(DamagedFileWarning, match="measured again"):
        (record,) = run_campaign(configurations, tmp_path, rounds=1, options=quick)
    assert read_measurements(tmp_path) == [record]
    assert path.with_suffix(".damaged").exists()


def test_what_a_caller_froze_stays_frozen(tiny_source: str, tmp_path: Path, quick: Any) -> None:
    frozen = gc.get_freeze_count()
    assert frozen > 0  # the tests' own
    configurations = _grid(tiny_source, visual_tokens=[1])
    list(run_campaign(configurations, tmp_path / "frozen", rounds=1, options=quick))
    assert gc.get_freeze_count() > 0.9 * frozen
    gc.unfreeze()
    try:
        list(run_campaign(configurations, tmp_path, rounds=1, options=quick))
        assert gc.get_freeze_count() < 0.1 * frozen  # 0 but on Python 3.12
    finally:
        gc.freeze()


def test_bad_campaigns_are_refused_before_anything_runs(
    tiny_source: str, tiny_text_source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownModelError):
        check(_grid("no-such-model"))
    with pytest.raises(UnknownMethodError):
        check(_grid(tiny_source, methods=["magic"]))
    with pytest.raises(UnsupportedError, match="needs a CUDA device"):
        check(_grid(tiny_source, modes=["cuda-graph"]))
    with pytest.raises(UnsupportedError, match="no CPU kernels"):
        check(_grid(tiny_source, dtypes=["int4"]))
    with pytest.raises(
        UnknownNameError, match="unknown attention 'no-such'; there is: eager, flash_"
    ):
        check(_grid(tiny_source, attention="no-such"))
    with pytest.raises(InvalidInputError, match="keep belongs to a method"):
        _grid(tiny_source, keeps=[64])
    with pytest.raises(UnsupportedError, match="has none"):
        check(_grid(tiny_text_source, methods=["divprune"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailableError):
        check(_grid(tiny_source, device="cuda"))


def test_profile_returns_what_it_measured(tiny_source: str, tmp_path: Path, quick: Any) -> None:
    records = profile(
        tiny_source, device="cpu", dtype="fp32", visual_tokens=[1, 4], text_tokens=3, options=quick
    )
    assert sorted(r.configuration.visual_tokens or 0 for r in records) == [1, 4]
    kept = profile(
        tiny_source, device="cpu", dtype="fp32", visual_tokens=4, text_tokens=3, options=quick,
        out=tmp_path, rounds=2,
    )  # fmt: skip
    assert len(kept) == 2
    # A config that its own name finds again may stand for the name, a nameless one may not.
    shape = load_model(tiny_source)
    same = {"device": "cpu", "dtype": "fp32", "visual_tokens": 4, "text_tokens": 3, "rounds": 2}
    assert profile(shape, out=tmp_path, options=quick, **same) == kept
    with pytest.raises(InvalidInputError, match="could not name it"):
        profile(replace(shape, name="nobody"), device="cpu", out=tmp_path)
    assert sorted(read_measurements(tmp_path), key=lambda r: r.round) == kept


def _campaign_in_child(source: str, folder: str, options: Any) -> None:
    for _ in run_campaign(
        _grid(source, visual_tokens=list(range(1, 11))), folder, rounds=2, options=options
    ):
        pass


def test_the_folder_is_free_again_as_soon_as_a_campaign_dies(
    tiny_source: str, tmp_path: Path, quick: Any
) -> None:
    fork = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = fork.Process(target=_campaign_in_child, args=(tiny_source, str(tmp_path), quick))
        child.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    assert next(run_campaign(_grid(tiny_source), tmp_path, rounds=1, options=quick)).status == "ok"
