"""The shipped figures, checked against arithmetic, against each other, and against data sheets."""

from __future__ import annotations

import pytest

from hardware_specs import get_hardware, list_hardware, list_sources
from hardware_specs.spec import DTYPES

SPECS = [get_hardware(hardware_id) for hardware_id in list_hardware()]
IDS = [spec.id for spec in SPECS]
PEAKS = [(spec, key) for spec in SPECS for key in spec.peaks]

every_device = pytest.mark.parametrize("spec", SPECS, ids=IDS)

# The L40S sheet prints 733 TOP/s for INT4 as for INT8; twice that is what the units would give.
DISPUTED = {("nvidia-l40s", "int4.matrix")}

# 8.18 TB/s by bus and data rate, 7.7 by the HGX table: the lower figure was taken.
BUS_DISAGREES = {"nvidia-b200-sxm-180gb"}


def test_there_are_the_devices_people_ask_for() -> None:
    assert len(list_hardware()) >= 53
    for form, size in (("pcie", 16), ("pcie", 32), ("sxm2", 16), ("sxm2", 32)):
        spec = get_hardware(f"nvidia-v100-{form}-{size}gb")
        assert spec.memory_bytes == size * 2**30
    assert {spec.vendor for spec in SPECS} >= {"NVIDIA", "AMD", "Intel", "Google", "Apple"}


# Not where a factor is unknown, nor where the clock was inferred from the peak itself.
WITH_ARITHMETIC = [
    (spec, key)
    for spec, key in PEAKS
    if spec.arithmetic_peak(key) is not None and key not in spec.clock_inferred
]


@pytest.mark.parametrize(
    ("spec", "key"), WITH_ARITHMETIC, ids=[f"{s.id}:{k}" for s, k in WITH_ARITHMETIC]
)
def test_units_times_clock_gives_the_peak(spec, key) -> None:
    arithmetic = spec.arithmetic_peak(key)
    if (spec.id, key) in DISPUTED:
        assert arithmetic == pytest.approx(2 * spec.peaks[key], rel=0.02)
        return
    assert arithmetic == pytest.approx(spec.peaks[key], rel=0.02)


def test_arithmetic_reaches_most_peaks() -> None:
    assert len(WITH_ARITHMETIC) > 0.75 * len(PEAKS)


@pytest.mark.parametrize(
    ("spec", "key"),
    [(s, k) for s, k in PEAKS if s.provenance[k].evidence.endswith("+A")],
    ids=lambda value: getattr(value, "id", value),
)
def test_what_claims_arithmetic_has_it(spec, key) -> None:
    assert spec.arithmetic_peak(key) is not None
    assert key not in spec.clock_inferred


@pytest.mark.parametrize(
    "spec",
    [s for s in SPECS if s.memory_bus_bits and s.memory_data_rate_bits_per_pin_per_s],
    ids=lambda spec: spec.id,
)
def test_bus_times_data_rate_gives_the_bandwidth(spec) -> None:
    by_bus = spec.memory_bus_bits * spec.memory_data_rate_bits_per_pin_per_s / 8
    # 3 % also excludes the slip of taking GB/s times 2**30, which is 7.4 % too much.
    expected = 0.07 if spec.id in BUS_DISAGREES else 0.03
    assert by_bus == pytest.approx(spec.bandwidth_bytes_per_s, rel=expected)


@every_device
def test_a_narrow_accumulator_is_never_slower(spec) -> None:
    for dtype in ("fp16", "fp8"):
        narrow = spec.peak_or_none(dtype, "matrix", "acc16")
        wide = spec.peak_or_none(dtype, "matrix", "acc32")
        if narrow is not None and wide is not None:
            assert narrow >= wide


@pytest.mark.parametrize(
    "spec",
    [s for s in SPECS if s.peak_or_none("bf16") or s.peak_or_none("fp16")],
    ids=lambda spec: spec.id,
)
def test_fewer_bits_are_never_slower(spec) -> None:
    # INT8 and FP8 run at least as fast as 16 bit on every matrix unit here; the TF32 rate is at
    # most that of 16 bit. One sparse figure among dense ones breaks one of these.
    half = spec.peak_or_none("bf16") or spec.peak_or_none("fp16")
    for dtype, lowest, highest in (("tf32", 0.2, 1), ("fp8", 1, 2), ("int8", 1, 4), ("fp4", 4, 8)):
        value = spec.peak_or_none(dtype)
        if value is not None:
            assert lowest * 0.98 <= value / half <= highest * 1.02, dtype


# Dense FLOP per clock and SM (CU) of the 16-bit matrix path, from the architecture documents:
# tensor cores per SM x FMA per tensor core and clock x 2. With sparsity each would be twice that.
DENSE_PER_CLOCK = {
    "Volta": 8 * 64 * 2,
    "Turing": 8 * 64 * 2,
    "GA100": 4 * 256 * 2,
    "GA102": 4 * 128 * 2,
    "Ada": 4 * 128 * 2,
    "Hopper": 4 * 512 * 2,
    "GB100": 4 * 1024 * 2,
    "GB202": 4 * 128 * 2,
    "GB10B": 4 * 1024 * 2,
    "GB20B": 4 * 128 * 2,
    "GA10B": 4 * 256 * 2,
    "CDNA2": 4 * 128 * 2,
    "CDNA3": 4 * 256 * 2,
    "CDNA4": 4 * 512 * 2,
}


@pytest.mark.parametrize(
    "spec",
    [s for s in SPECS if s.chip in DENSE_PER_CLOCK or s.architecture in DENSE_PER_CLOCK],
    ids=lambda spec: spec.id,
)
def test_no_peak_is_a_sparse_one(spec) -> None:
    dense = DENSE_PER_CLOCK.get(spec.chip) or DENSE_PER_CLOCK[spec.architecture]
    fastest = max(v for k, v in spec.peaks.items() if k.startswith(("fp16.matrix", "bf16.matrix")))
    clock = spec.matrix_clock_hz or spec.boost_hz
    assert fastest <= 1.02 * dense * spec.sm_count * clock


@every_device
def test_what_was_measured_is_below_the_peak(spec) -> None:
    # A measurement above the peak shows a peak that is too low (an L40S at 181 TFLOP/s).
    label = {"bf16": "bf16", "fp8": "fp8", "int8(sq)": "int8", "nvfp4": "fp4"}
    for rate in spec.measured:
        reached = max(value for value in (rate.max, rate.mean) if value is not None)
        assert 0.2 < reached / spec.peak(label[rate.dtype]) < 1.0, rate


@every_device
def test_every_number_names_a_document(spec) -> None:
    documents = list_sources()
    stated = {"sm_count", "boost_hz", "matrix_clock_hz", "l2_bytes", "llc_bytes", "tdp_w"}
    for key in (*(k for k in stated if getattr(spec, k) is not None), "memory", *spec.peaks):
        origin = spec.provenance[key]
        assert origin.source, key
        assert set(origin.source) <= set(documents), key
        assert origin.evidence not in ("user", "measured"), key


@every_device
def test_what_is_missing_is_absent(spec) -> None:
    numbers = [*spec.peaks.values(), *spec.flops_per_clock_per_sm.values()]
    numbers += [spec.bandwidth_bytes_per_s, spec.memory_bytes, spec.tdp_w, spec.l2_bytes]
    assert all(number is None or number > 0 for number in numbers)
    for key in spec.unsupported:
        assert not [k for k in spec.peaks if k == key or k.startswith(f"{key}.")], key


@every_device
def test_capacities(spec) -> None:
    if spec.memory_bytes is None:
        assert spec.id.startswith("cpu-")
        assert spec.usable_memory_bytes is None
        return
    assert spec.memory_bytes % 2**30 == 0
    if spec.memory_reported_bytes is not None:
        assert 0.89 * spec.memory_bytes < spec.memory_reported_bytes <= spec.memory_bytes
        assert spec.usable_memory_bytes == spec.memory_reported_bytes
    assert spec.memory_is_assumed == (spec.memory_reported_bytes is None)
    if spec.memory_is_assumed:
        assert spec.usable_memory_bytes == spec.memory_bytes * 15 // 16


# What the driver shows, in MiB: nvidia-smi on each card, CUDA and ROCm where that was printed.
SHOWN_MIB = {
    "nvidia-a10": 23028,
    "nvidia-a100-pcie-40gb": 40960,
    "nvidia-a100-pcie-80gb": 81920,
    "nvidia-a100-sxm4-80gb": 81920,
    "nvidia-a30": 24576,
    "nvidia-a40": 46068,
    "nvidia-gh200-96gb": 97871,
    "nvidia-h100-nvl-94gb": 95830,
    "nvidia-h100-pcie-80gb": 81559,
    "nvidia-h200-sxm-141gb": 143771,
    "nvidia-l4": 23034,
    "nvidia-rtx-3090": 24576,
    "nvidia-rtx-4090": 24564,
    "nvidia-rtx-5090": 32607,
    "nvidia-rtx-6000-ada": 49140,
    "nvidia-rtx-a5000": 24564,
    "nvidia-rtx-a6000": 49140,
    "nvidia-t4": 15360,
    "nvidia-v100-pcie-16gb": 16160,
    "nvidia-v100-sxm2-32gb": 32510,
    "nvidia-dgx-spark-128gb": 122570,
}
# nvidia-smi counts more than CUDA gives: at least that much.
AT_MOST_MIB = {"nvidia-h100-sxm5-80gb": 81559, "nvidia-a100-sxm4-40gb": 40960, "nvidia-l40s": 46068}


def test_reported_memory() -> None:
    for hardware_id, mib in SHOWN_MIB.items():
        assert get_hardware(hardware_id).memory_reported_bytes == mib * 2**20, hardware_id
    for hardware_id, mib in AT_MOST_MIB.items():
        assert 0.95 < get_hardware(hardware_id).memory_reported_bytes / (mib * 2**20) < 1
    # The Orin Nano 4 GB is the one of NVIDIA's without a public figure.
    unknown = [s.id for s in SPECS if s.vendor == "NVIDIA" and s.memory_is_assumed]
    assert unknown == ["nvidia-jetson-orin-nano-4gb"]
    for spec in SPECS:
        if spec.memory_reported_bytes is not None:
            assert set(spec.provenance["memory_reported_bytes"].source) <= set(list_sources())


# (id, attribute or peak key, value as the vendor prints it), at least one device per vendor.
PRINTED = [
    ("nvidia-a100-sxm4-80gb", "fp16.matrix.acc32", 312e12),
    ("nvidia-a100-sxm4-80gb", "int4.matrix", 1248e12),
    ("nvidia-a100-sxm4-80gb", "bandwidth_bytes_per_s", 2039e9),
    ("nvidia-a100-sxm4-80gb", "memory_bytes", 80 * 2**30),
    ("nvidia-a100-sxm4-80gb", "l2_bytes", 40 * 2**20),
    ("nvidia-a100-sxm4-80gb", "sm_count", 108),
    ("nvidia-a100-sxm4-80gb", "boost_hz", 1410e6),
    ("nvidia-a100-sxm4-80gb", "tdp_w", 400),
    ("nvidia-a100-sxm4-80gb", "compute_capability", "8.0"),
    ("nvidia-a100-sxm4-40gb", "bandwidth_bytes_per_s", 1555e9),
    ("nvidia-a100-sxm4-40gb", "usable_memory_bytes", 42405855232),
    ("nvidia-h100-sxm5-80gb", "bf16.matrix.acc32", 989.4e12),
    ("nvidia-h100-sxm5-80gb", "fp8.matrix.acc32", 1978.9e12),
    ("nvidia-h100-sxm5-80gb", "matrix_clock_hz", 1830e6),
    ("nvidia-h100-pcie-80gb", "bf16.matrix.acc32", 756.5e12),
    ("nvidia-v100-pcie-16gb", "fp16.matrix.acc32", 112e12),
    ("nvidia-v100-sxm2-32gb", "fp16.matrix.acc32", 125e12),
    ("nvidia-v100-sxm2-32gb", "int8.dp4a", 62e12),
    ("nvidia-l40s", "fp8.matrix.acc32", 733e12),
    ("nvidia-l4", "bandwidth_bytes_per_s", 300e9),
    ("amd-mi300x", "fp16.matrix.acc32", 1307.4e12),
    ("amd-mi300x", "bandwidth_bytes_per_s", 5325e9),
    ("amd-mi300x", "llc_bytes", 256 * 2**20),
    ("amd-mi250x", "int8.matrix", 383e12),
    ("intel-gaudi3-oam", "bf16.matrix.acc32", 1677e12),
    ("google-tpu-v5e", "bf16.matrix.acc32", 197e12),
    ("google-tpu-v5e", "int8.matrix", 393e12),
    ("apple-m3-max", "bandwidth_bytes_per_s", 400e9),
    ("apple-m4-max", "bandwidth_bytes_per_s", 546e9),
    ("nvidia-rtx-5090", "fp16.matrix.acc32", 209.5e12),
    ("nvidia-rtx-a5000", "fp16.matrix.acc32", 111.1e12),
    ("nvidia-rtx-a5000", "bandwidth_bytes_per_s", 768e9),
    ("nvidia-jetson-agx-thor-128gb", "fp4.matrix", 1035e12),
    ("nvidia-jetson-agx-thor-128gb", "bandwidth_bytes_per_s", 273e9),
    ("nvidia-jetson-orin-nx-16gb", "sm_count", 8),
    ("nvidia-jetson-orin-nx-16gb", "bandwidth_bytes_per_s", 102.4e9),
    ("nvidia-jetson-orin-nx-8gb", "boost_hz", 765e6),
    ("nvidia-jetson-orin-nano-8gb", "boost_hz", 625e6),
    ("nvidia-jetson-orin-nano-4gb", "sm_count", 4),
    ("nvidia-dgx-spark-128gb", "fp4.matrix", 500e12),
    ("nvidia-dgx-spark-128gb", "sm_count", 48),
]


@pytest.mark.parametrize(("hardware_id", "what", "value"), PRINTED)
def test_printed_figures(hardware_id, what, value) -> None:
    spec = get_hardware(hardware_id)
    assert (spec.peaks[what] if what.split(".")[0] in DTYPES else getattr(spec, what)) == value


def test_links() -> None:
    links = get_hardware("nvidia-h100-sxm5-80gb").links
    assert (links["pcie"].generation, links["pcie"].lanes) == (5, 16)
    assert links["nvlink"].bytes_per_s_bidirectional == 900e9
    for spec in SPECS:
        for link in spec.links.values():
            if link.bytes_per_s_bidirectional and link.bytes_per_s_per_direction:
                assert link.bytes_per_s_bidirectional == 2 * link.bytes_per_s_per_direction
            if link.generation:
                # PCIe 3.0 to 5.0: 8, 16, 32 GT/s per lane, 128 of 130 bits are data.
                per_lane = 1e9 * 2 ** (link.generation - 3) * 128 / 130
                if link.generation <= 5:
                    expected = per_lane * link.lanes
                    assert link.bytes_per_s_per_direction == pytest.approx(expected, rel=1e-4)


def test_a_gcd_is_half_of_its_package() -> None:
    package, die = get_hardware("amd-mi250x"), get_hardware("amd-mi250x-gcd")
    assert {key: 2 * value for key, value in die.peaks.items()} == dict(package.peaks)
    assert 2 * die.memory_bytes == package.memory_bytes
    assert 2 * die.bandwidth_bytes_per_s == package.bandwidth_bytes_per_s
    assert 2 * die.sm_count == package.sm_count
