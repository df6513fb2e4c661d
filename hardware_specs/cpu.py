"""The CPU of this machine, described by measuring it.

No data sheet has a CPU's all-core clock under vector load, and public lists of CPU rates disagree by
a factor of 30. So nothing is looked up: matrix products and copies are timed, for a second or two.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import DeviceUnavailableError, InvalidInputError, MissingDependencyError
from hardware_specs.spec import HardwareSpec, MeasuredRate, Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROBE = Path(__file__).with_name("cpu_probe.py")
_SYSTEM = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_TIMEOUT_S = 120

_THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: Formats the probe can time, and the package each needs.
_PROBED = {"fp64": "numpy", "fp32": "numpy", "bf16": "torch", "fp16": "torch"}

_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "ARM": "ARM"}


def measure_cpu(dtypes: Sequence[str] = ("fp32", "fp64")) -> HardwareSpec:
    """Return this machine's CPU: measured matmul rates and copy bandwidth, on one and all threads.

    The peaks are achieved rates: the best of a few large matrix products, on all threads that this
    process may use or on one, of `fp32` and `fp64` through numpy, `bf16` and `fp16` through torch. The
    bandwidth is that of a copy, bytes read plus bytes written. `measured` and the provenance notes have what
    one thread reaches.

    Raises:
        InvalidInputError: a format that cannot be timed on a CPU.
        MissingDependencyError: a format needs torch, which is not installed.
        DeviceUnavailableError: the measuring process failed.
    """
    for dtype in dtypes:
        if dtype not in _PROBED:
            raise InvalidInputError(f"cannot time {dtype!r} here; there is: {', '.join(_PROBED)}")
        if find_spec(_PROBED[dtype]) is None:
            raise MissingDependencyError(_PROBED[dtype], "profile")
    if not dtypes:
        raise InvalidInputError("name at least one format to time, such as fp32")
    threads = usable_threads()
    size_bytes = _copy_size_bytes()
    one = _probe(1, size_bytes, dtypes)
    every = one if threads == 1 else _probe(threads, size_bytes, dtypes)
    return _describe(threads, size_bytes, one, every)


def _copy_size_bytes() -> int:
    """Return a size that exceeds the caches and fits into memory."""
    wanted = min(max(4 * (_cache_bytes(3) or 0), 2**28), 2**31)
    return min(wanted, (_limited(memory_bytes()) or 2**31) // 8)


def usable_threads() -> int:
    """Return how many threads may run at once: CPUs of this process, within its cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cpus = min(cpus, max(1, math.ceil(int(quota[0]) / int(quota[1]))))
    return cpus


def _probe(threads: int, size_bytes: int, dtypes: Sequence[str]) -> dict[str, Any]:
    environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
    try:
        # -P: the probe's folder must not come first on the path, its neighbours are no top-level
        # modules. The arguments are this file's own.
        run = subprocess.run(  # noqa: S603
            [sys.executable, "-P", str(_PROBE), str(threads), str(size_bytes), *dtypes],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        result: dict[str, Any] = json.loads(run.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        reason = detail[-1] if detail else type(error).__name__
        raise DeviceUnavailableError(f"cannot measure this CPU: {reason}") from error
    return result


def _describe(
    threads: int, size_bytes: int, one: dict[str, Any], every: dict[str, Any]
) -> HardwareSpec:
    info = cpu_info()
    vendor = info.get("vendor_id", "")
    flags = set(info.get("flags", info.get("features", "")).split())
    caches = {level: _cache_bytes(level) for level in (2, 3)}
    memory = memory_bytes()
    copies = {1: one["copy_bytes_per_s"], threads: every["copy_bytes_per_s"]}
    reached = " and ".join(f"{b / 1e9:.1f} GB/s on {n}" for n, b in copies.items())
    measured = partial(Provenance, ("measured",), "measured")
    system = measured("as the operating system reports it")
    provenance = {
        "sm_count": measured("threads this process may run at once"),
        "memory": measured(
            "size as the operating system reports it; bandwidth of a copy of "
            f"{size_bytes / 2**20:.0f} MiB, read and write counted: {reached} threads",
        ),
        **{f"{n}_bytes": system for n, level in (("l2", 2), ("llc", 3)) if caches[level]},
    }
    peaks = {}
    for dtype, rate in every["flop_per_s"].items():
        # AMX is a matrix unit; everything else on a CPU is SIMD.
        amx = dtype == "bf16" and "amx_bf16" in flags
        key = "bf16.matrix.acc32" if amx else f"{dtype}.vector"
        # On a busy machine all threads can be slower than one, so take the larger rate as the peak.
        peaks[key] = max(rate, one["flop_per_s"][dtype])
        provenance[key] = measured(
            f"best {dtype} matrix product through {_PROBED[dtype]}, achieved: "
            f"{rate / 1e9:.1f} GFLOP/s on {threads} threads, "
            f"{one['flop_per_s'][dtype] / 1e9:.1f} GFLOP/s on one",
        )
    return HardwareSpec(
        id="cpu-measured",
        name=info.get("model name") or platform.processor() or platform.machine() or "CPU",
        vendor=_VENDORS.get(vendor, vendor or "unknown"),
        architecture=platform.machine() or "unknown",
        sm_count=threads,
        l2_bytes=caches[2],
        llc_bytes=caches[3],
        memory_bytes=memory,
        memory_reported_bytes=_limited(memory),
        memory_label="set by host",
        memory_kind="host memory",
        # One thread can saturate the memory, and a second one then only disturbs.
        bandwidth_bytes_per_s=max(copies.values()),
        peaks=peaks,
        measured=tuple(
            MeasuredRate(what="gemm_one_thread", dtype=dtype, source="measured", max=rate)
            for dtype, rate in one["flop_per_s"].items()
        ),
        notes=(
            f"measured on {threads} threads for a second or two; other load on the machine, turbo "
            "and thermal limits move these figures",
        ),
        provenance=provenance,
    )


def cpu_info(listing: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return what the system says of the processor, by lower-case names; empty where it has no such list."""
    pairs = (line.partition(":") for line in _read(listing).splitlines())
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip().lower(), value.strip())
    return found


def _cache_bytes(level: int) -> int | None:
    """Add up the caches of one level; those that several CPUs share count once."""
    sizes: dict[str, int] = {}
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    for cpu in cpus:
        for index in (_SYSTEM / f"cpu{cpu}" / "cache").glob("index*"):
            size = _read(index / "size")
            if _read(index / "level") == str(level) and size[:-1].isdigit():
                scale = {"K": 2**10, "M": 2**20}.get(size[-1], 1)
                sizes[_read(index / "shared_cpu_list") or str(cpu)] = int(size[:-1]) * scale
    return sum(sizes.values()) or None


def memory_bytes() -> int | None:
    """Return the machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _limited(memory: int | None) -> int | None:
    limit = _read(_CGROUP / "memory.max")
    if limit.isdigit():
        return min(int(limit), memory or int(limit))
    return memory


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
