"""`HardwareSpec`: one device, its numbers in SI units, and where each number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any

from hardware_specs.errors import InvalidInputError, MissingPeakError, check_kind

#: Number formats a peak can be given for.
DTYPES = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8", "int4")

#: Arithmetic paths: CUDA cores (or SIMD lanes), tensor cores (MFMA, MXU, AMX), the INT8 dot product
#: of CUDA cores, and a separate inference engine beside the GPU.
ENGINES = ("vector", "matrix", "dp4a", "dla")

#: Share of the nominal memory taken as hidden where nobody publishes what the driver shows: what
#: ECC takes on GDDR6 (A10, A40, L4, T4), the most that NVML hides of a discrete GPU with a figure.
UNREPORTED_SHARE = 1 / 16

#: Width of the accumulator, where the rate depends on it.
ACCUMULATORS = ("acc16", "acc32")


#: Fields that a device file gives as they are, and quantities, each with a source of its own.
NAMED = ("chip", "year", "device_names", "device_granularity", "boards")
QUANTITIES = ("sm_count", "boost_hz", "matrix_clock_hz", "l2_bytes", "llc_bytes", "tdp_w")
#: Key under `memory` in a device file -> attribute of the spec.
MEMORY = {
    "label": "memory_label",
    "kind": "memory_kind",
    "nominal_bytes": "memory_bytes",
    "reported_bytes": "memory_reported_bytes",
    "bandwidth_bytes_per_s": "bandwidth_bytes_per_s",
    "bus_bits": "memory_bus_bits",
    "data_rate_bits_per_pin_per_s": "memory_data_rate_bits_per_pin_per_s",
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a number comes from.

    Attributes:
        source: keys of documents in `data/sources.yaml`, or `user` / `measured`.
        evidence: how the number was read (`hardware_specs.sources.EVIDENCE`).
        note: what a reader must know about it; empty where there is nothing to say.
        others_say: the value another list prints, by the key of that list.
    """

    source: tuple[str, ...]
    evidence: str
    note: str = ""
    others_say: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A connection of the device to the host or to other devices.

    Attributes:
        bytes_per_s_per_direction: B/s in one direction; None where only the sum is known.
        bytes_per_s_bidirectional: B/s, both directions added; None where only one is known.
        generation: PCIe generation; None for other links.
        lanes: PCIe lanes; None for other links.
    """

    bytes_per_s_per_direction: float | None = None
    bytes_per_s_bidirectional: float | None = None
    generation: int | None = None
    lanes: int | None = None


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """A rate that public benchmarks reached, in op/s. It is no peak and replaces none.

    Attributes:
        what: `gemm` (single GEMM calls), `mamf` (maximum achievable matmul FLOPS) or
            `gemm_one_thread` (a CPU's matrix products on one thread).
        dtype: the format as its publisher labels it.
        source: key under `measured_sources` in `data/sources.yaml`, or `measured`.
        max: highest single result (a short burst).
        mean: mean over iterations of the best shape.
        median_mnk_ge_4096: median over calls with m, n and k all at least 4096.
        p90_mnk_ge_4096: 90th percentile of the same calls.
        points: calls behind `max`.
        points_mnk_ge_4096: calls behind the median and the percentile.
    """

    what: str
    dtype: str
    source: str
    max: float | None = None
    mean: float | None = None
    median_mnk_ge_4096: float | None = None
    p90_mnk_ge_4096: float | None = None
    points: int | None = None
    points_mnk_ge_4096: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HardwareSpec:
    """One device: a SKU with its form factor and memory size.

    Peaks are dense: 1 fused multiply-add = 2 op, no structured sparsity. An attribute that is None
    is not known (or does not exist on this device); nothing unknown is ever 0.

    Attributes:
        id: the name of its file, such as `nvidia-a100-sxm4-80gb`.
        name: the vendor's name.
        vendor: who makes it.
        architecture: the vendor's name of the generation.
        chip: name of the silicon.
        year: year of release.
        compute_capability: CUDA compute capability (`8.0`) or ROCm target (`gfx942`).
        sm_count: SMs (NVIDIA), CUs (AMD), MMEs (Gaudi), MXUs (TPU), GPU cores (Apple), cores (CPU).
        boost_hz: clock behind the vector and FP64 peaks, Hz.
        matrix_clock_hz: clock behind the other matrix peaks where it differs, Hz.
        l2_bytes: L2 cache, B.
        llc_bytes: last-level cache behind L2, B.
        tdp_w: board power limit, W.
        device_names: names the driver prints, exactly.
        device_granularity: what the driver shows as one device where that is not the whole package.
        boards: part numbers in the device tree, which tell apart modules of one name.
        memory_bytes: nominal capacity, B (a label of 80 GB is 80 GiB); None where the host sets it.
        memory_reported_bytes: capacity the driver shows, B; never more than nominal.
        memory_label: capacity as the vendor prints it.
        memory_kind: memory technology.
        bandwidth_bytes_per_s: peak memory bandwidth, B/s (decimal).
        memory_bus_bits: width of the memory bus, bit.
        memory_data_rate_bits_per_pin_per_s: data rate of one pin, bit/s.
        links: `pcie`, `nvlink`, `nvlink_c2c`, `infinity_fabric`, `ethernet`, `ici`.
        links_absent: links the device is known not to have.
        peaks: op/s by `dtype.engine[.accumulator]`.
        flops_per_clock_per_sm: op per clock and unit, by the same keys.
        clock_inferred: peaks whose clock was inferred from the peak itself.
        unsupported: formats or paths the device is known not to have, with a remark.
        measured: rates that public benchmarks reached.
        notes: what a reader must know.
        provenance: by attribute name or peak key; `memory` and `links` cover their groups.
        own_sources: documents that the device's own file names, by key.
        alias_note: which device an alias was taken for, and what else it may mean; None for an id.
    """

    id: str
    name: str
    vendor: str
    architecture: str
    bandwidth_bytes_per_s: float
    peaks: Mapping[str, float]
    chip: str | None = None
    year: int | None = None
    compute_capability: str | None = None
    sm_count: int | None = None
    boost_hz: float | None = None
    matrix_clock_hz: float | None = None
    l2_bytes: int | None = None
    llc_bytes: int | None = None
    tdp_w: float | None = None
    device_names: tuple[str, ...] = ()
    device_granularity: str | None = None
    boards: tuple[str, ...] = ()
    memory_bytes: int | None = None
    memory_reported_bytes: int | None = None
    memory_label: str | None = None
    memory_kind: str | None = None
    memory_bus_bits: int | None = None
    memory_data_rate_bits_per_pin_per_s: float | None = None
    links: Mapping[str, Link] = field(default_factory=dict)
    links_absent: tuple[str, ...] = ()
    flops_per_clock_per_sm: Mapping[str, float] = field(default_factory=dict)
    clock_inferred: frozenset[str] = frozenset()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[MeasuredRate, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    own_sources: Mapping[str, str] = field(default_factory=dict)
    alias_note: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Make the mappings read-only: a spec is shared by everything that looked it up."""
        for name in _MAPPINGS:
            check_kind(name, getattr(self, name), Mapping, "a mapping")
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __repr__(self) -> str:
        """Name the device and its main figures; all fields would fill a page."""
        shown = [key for key in _PEAKS_SHOWN if key in self.peaks]
        peaks = ", ".join(f"{key} {self.peaks[key] / 1e12:g}" for key in shown)
        return (
            f"<HardwareSpec {self.id}: {self.memory_label}, "
            f"{self.bandwidth_bytes_per_s / 1e9:g} GB/s, Top/s: {peaks}>"
        )

    def __hash__(self) -> int:
        """Hash by what tells devices apart, so that a spec can key a cache."""
        return hash((self.id, self.name, self.memory_bytes, self.bandwidth_bytes_per_s))

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from plain data: read-only mappings cannot be pickled or copied."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: dict(values[name]) for name in _MAPPINGS}
        return partial(HardwareSpec, **values), ()

    @property
    def usable_memory_bytes(self) -> int | None:
        """Capacity to check a footprint against, B; None where the host sets it.

        What the driver shows; where no public figure exists, the nominal capacity less
        `UNREPORTED_SHARE` of it (`memory_is_assumed`). A capacity that the author of a file states
        is taken as it stands. The CUDA context and the allocator take their part in addition.

        >>> from hardware_specs import get_hardware
        >>> get_hardware("nvidia-l4").usable_memory_bytes // 2**20  # of 24,576 MiB nominal
        23034
        """
        if self.memory_is_assumed and self.memory_bytes is not None:
            return int(self.memory_bytes * (1 - UNREPORTED_SHARE))
        return self.memory_reported_bytes or self.memory_bytes

    @property
    def memory_is_assumed(self) -> bool:
        """Whether `usable_memory_bytes` is an assumption: no public figure of the driver exists."""
        origin = self.provenance.get("memory")
        published = origin is not None and origin.evidence not in ("user", "measured")
        return published and self.memory_reported_bytes is None and self.memory_bytes is not None

    def peak_or_none(
        self, dtype: str, engine: str = "matrix", accumulator: str | None = None
    ) -> float | None:
        """Return the dense peak of one arithmetic path in op/s, or None where there is none.

        The path is one of `DTYPES` on one of `ENGINES`. Without an accumulator it is the peak with `acc32`,
        else the one given without.

        Raises:
            InvalidInputError: no such format, path or accumulator exists.

        >>> from hardware_specs import get_hardware
        >>> get_hardware("nvidia-a100-sxm4-80gb").peak_or_none("fp8") is None
        True
        """
        key = f"{dtype}.{engine}"
        peaks = self.peaks
        if accumulator is None:
            value = peaks.get(key + ".acc32")
            if value is None:
                value = peaks.get(key)
        else:
            value = peaks.get(f"{key}.{accumulator}")
        if value is None:
            for given, known, what in (
                (dtype, DTYPES, "dtype"),
                (engine, ENGINES, "engine"),
                (accumulator, (None, *ACCUMULATORS), "accumulator"),
            ):
                if given not in known:
                    raise InvalidInputError(
                        f"unknown {what} {given!r}; there is: {', '.join(map(str, known))}"
                    )
        return value

    def peak(self, dtype: str, engine: str = "matrix", accumulator: str | None = None) -> float:
        """Return the dense peak of one arithmetic path in op/s, chosen as by `peak_or_none`.

        Raises:
            MissingPeakError: the device has no such path; the message names those it has.
            InvalidInputError: no such format, path or accumulator exists.

        >>> from hardware_specs import get_hardware
        >>> get_hardware("nvidia-a100-sxm4-80gb").peak("fp16")
        312000000000000.0
        """
        value = self.peak_or_none(dtype, engine, accumulator)
        if value is None:
            asked = ".".join(part for part in (dtype, engine, accumulator) if part)
            raise MissingPeakError(
                f"{self.id} has no peak for {asked}{self._why_missing(dtype, engine)}; "
                f"it has: {', '.join(self.peaks)}"
            )
        return value

    def _why_missing(self, dtype: str, engine: str) -> str:
        for key in (f"{dtype}.{engine}", dtype, engine):
            if key in self.unsupported:
                remark = self.unsupported[key]
                return f" (the device does not support {key}{': ' + remark if remark else ''})"
        return " (no figure for it is known)"

    def arithmetic_peak(self, key: str) -> float | None:
        """Return the peak that units and clock give: sm_count x op per clock and unit x clock.

        The clock is `boost_hz`, except for matrix paths other than FP64 where the vendor states
        `matrix_clock_hz`. None where one of the factors is not known.

        >>> from hardware_specs import get_hardware
        >>> a100 = get_hardware("nvidia-a100-sxm4-80gb")
        >>> a100.arithmetic_peak("fp16.matrix.acc32")  # 108 x 2048 x 1.41e9
        311869440000000.0
        """
        per_clock = self.flops_per_clock_per_sm.get(key)
        dtype, engine = key.split(".")[:2]
        clock = self.boost_hz
        if engine == "matrix" and dtype != "fp64" and self.matrix_clock_hz is not None:
            clock = self.matrix_clock_hz
        if per_clock is None or clock is None or self.sm_count is None:
            return None
        return self.sm_count * per_clock * clock


#: Peaks that stand in a spec's `repr`.
_PEAKS_SHOWN = (
    "fp32.vector",
    "fp16.matrix.acc32",
    "bf16.matrix.acc32",
    "fp8.matrix.acc32",
    "int8.matrix",
)
_MAPPINGS = ("peaks", "links", "flops_per_clock_per_sm", "unsupported", "provenance", "own_sources")
