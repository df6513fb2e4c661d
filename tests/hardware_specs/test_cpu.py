"""The CPU, measured: figures that can be, and what is said where it cannot be measured."""

from __future__ import annotations

import subprocess

import pytest

from hardware_specs import (
    DeviceUnavailableError,
    InvalidInputError,
    cpu,
    cpu_probe,
    load_hardware,
    measure_cpu,
    save_hardware,
)
from hardware_specs.errors import MissingDependencyError


@pytest.fixture(scope="module")
def spec():
    return measure_cpu()


def test_the_figures_can_be(spec) -> None:
    # From a slow single core to a large server; one rate says nothing of the other on a busy machine.
    assert 1e9 < spec.peak("fp32", "vector") < 1e14
    assert 1e8 < spec.peak("fp64", "vector") < 1e14
    assert 1e9 < spec.bandwidth_bytes_per_s < 2e12
    assert spec.sm_count == cpu.usable_threads() >= 1
    assert spec.usable_memory_bytes is None or spec.usable_memory_bytes > 2**28
    assert spec.vendor
    assert spec.name


def test_every_figure_says_that_it_was_measured(spec) -> None:
    assert {origin.evidence for origin in spec.provenance.values()} == {"measured"}
    assert {"memory", "sm_count", *spec.peaks} <= set(spec.provenance)
    assert "GFLOP/s on one" in spec.provenance["fp32.vector"].note
    one_thread = {rate.dtype: rate.max for rate in spec.measured}
    assert one_thread.keys() == {"fp32", "fp64"}
    # A peak is never under what one thread alone reaches.
    assert spec.peak("fp32", "vector") >= one_thread["fp32"]


def test_a_measured_cpu_can_be_saved_and_loaded(spec, tmp_path) -> None:
    save_hardware(spec, tmp_path / "cpu-measured.yaml")
    assert load_hardware(tmp_path / "cpu-measured.yaml") == spec


@pytest.mark.parametrize("dtype", ["int8", "fp8", "", "float32"])
def test_what_cannot_be_timed(dtype) -> None:
    with pytest.raises(InvalidInputError, match="there is: fp64, fp32, bf16, fp16"):
        measure_cpu((dtype,))


def test_nothing_to_time() -> None:
    with pytest.raises(InvalidInputError, match="name at least one"):
        measure_cpu(())


def test_without_torch_half_precision_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(cpu, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="torch"):
        measure_cpu(("bf16",))


@pytest.mark.parametrize(
    "program", ["raise SystemExit('no BLAS here')", "print('no JSON')", "import no_such_module"]
)
def test_a_failing_probe_is_one_clear_error(monkeypatch, tmp_path, program) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(program)
    monkeypatch.setattr(cpu, "_PROBE", probe)
    with pytest.raises(DeviceUnavailableError, match="cannot measure this CPU: "):
        measure_cpu(("fp32",))


def test_a_probe_that_hangs_is_ended(monkeypatch, tmp_path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(cpu, "_PROBE", probe)
    monkeypatch.setattr(cpu, "_TIMEOUT_S", 0.2)
    with pytest.raises(DeviceUnavailableError, match="timed out") as raised:
        measure_cpu(("fp32",))
    assert isinstance(raised.value.__cause__, subprocess.TimeoutExpired)


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def test_shared_caches_count_once(monkeypatch, tmp_path) -> None:
    # Two cores of two threads each: a private L2 per core, one L3 for all.
    for number in range(4):
        core = "0-1" if number < 2 else "2-3"
        caches = tmp_path / f"cpu{number}" / "cache"
        write(caches / "index2", level="2", size="1024K", shared_cpu_list=core)
        write(caches / "index3", level="3", size="32M", shared_cpu_list="0-3")
    monkeypatch.setattr(cpu, "_SYSTEM", tmp_path)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert cpu._cache_bytes(2) == 2 * 2**20
    assert cpu._cache_bytes(3) == 32 * 2**20
    assert cpu._cache_bytes(4) is None


def test_a_container_has_what_its_limits_allow(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: set(range(64)))
    assert cpu.usable_threads() == 64
    write(tmp_path, **{"cpu.max": "max 100000", "memory.max": "max"})
    assert cpu.usable_threads() == 64
    assert cpu._limited(2**34) == 2**34
    write(tmp_path, **{"cpu.max": "250000 100000", "memory.max": str(2**32)})
    assert cpu.usable_threads() == 3
    assert cpu._limited(2**34) == 2**32
    write(tmp_path, **{"cpu.max": "5000 100000"})
    assert cpu.usable_threads() == 1


def test_amx_is_a_matrix_unit(monkeypatch) -> None:
    rates = {"flop_per_s": {"bf16": 1e12}, "copy_bytes_per_s": 1e10}
    for flags, key in (("avx2 amx_bf16", "bf16.matrix.acc32"), ("avx2", "bf16.vector")):
        info = {"vendor_id": "GenuineIntel", "model name": "A Xeon", "flags": flags}
        monkeypatch.setattr(cpu, "cpu_info", lambda info=info: info)
        spec = cpu._describe(4, 2**28, rates, rates)
        assert dict(spec.peaks) == {key: 1e12}
        assert (spec.vendor, spec.name) == ("Intel", "A Xeon")


def test_rates_follow_from_the_shortest_time(monkeypatch) -> None:
    # Each clock reading is 1 s after the last: a product of n = 256 takes 1 s.
    ticks = iter(range(10_000))
    monkeypatch.setattr(cpu_probe.time, "perf_counter", lambda: float(next(ticks)))
    assert cpu_probe.matmul_flop_per_s("fp32", 1) == 2 * 256**3
    assert cpu_probe.copy_bytes_per_s(3, 12_000) == 2 * 12_000
