"""Device names as drivers print them: each is one device, and a near name is none."""

from __future__ import annotations

import pytest

from hardware_specs import (
    UnknownHardwareError,
    could_be,
    get_hardware,
    list_hardware,
    match_device_name,
)

GIB = 2**30

# Names as torch.cuda.get_device_name() prints them on real machines.
REAL_NAMES = {
    "NVIDIA H100 80GB HBM3": "nvidia-h100-sxm5-80gb",
    "NVIDIA H100 PCIe": "nvidia-h100-pcie-80gb",
    "NVIDIA H100 NVL": "nvidia-h100-nvl-94gb",
    "NVIDIA H200": "nvidia-h200-sxm-141gb",
    "NVIDIA GH200 480GB": "nvidia-gh200-96gb",
    "NVIDIA B200": "nvidia-b200-sxm-180gb",
    "NVIDIA A100-SXM4-40GB": "nvidia-a100-sxm4-40gb",
    "NVIDIA A100-SXM4-80GB": "nvidia-a100-sxm4-80gb",
    "NVIDIA A100-PCIE-40GB": "nvidia-a100-pcie-40gb",
    "NVIDIA A100 80GB PCIe": "nvidia-a100-pcie-80gb",
    "NVIDIA L4": "nvidia-l4",
    "NVIDIA L40S": "nvidia-l40s",
    "NVIDIA A10": "nvidia-a10",
    "NVIDIA A10G": "nvidia-a10g",
    "NVIDIA A40": "nvidia-a40",
    "NVIDIA RTX A6000": "nvidia-rtx-a6000",
    "NVIDIA RTX 6000 Ada Generation": "nvidia-rtx-6000-ada",
    "NVIDIA GeForce RTX 3090": "nvidia-rtx-3090",
    "NVIDIA GeForce RTX 4090": "nvidia-rtx-4090",
    "NVIDIA GeForce RTX 5090": "nvidia-rtx-5090",
    "Tesla T4": "nvidia-t4",
    "Tesla V100-SXM2-16GB": "nvidia-v100-sxm2-16gb",
    "Tesla V100-SXM2-32GB": "nvidia-v100-sxm2-32gb",
    "Tesla V100-PCIE-16GB": "nvidia-v100-pcie-16gb",
    "Tesla V100-PCIE-32GB": "nvidia-v100-pcie-32gb",
    "AMD Instinct MI300X": "amd-mi300x",
    "AMD Instinct MI325X": "amd-mi325x",
    "NVIDIA GH200 120GB": "nvidia-gh200-96gb",
    "NVIDIA RTX A5000": "nvidia-rtx-a5000",
    "NVIDIA GB10": "nvidia-dgx-spark-128gb",
    "NVIDIA Thor": "nvidia-jetson-agx-thor-128gb",
    "Thor (nvgpu)": "nvidia-jetson-agx-thor-128gb",
    "Apple M4 Max": "apple-m4-max",
    # Drivers before 2021 left the vendor out, lists leave out the brand, people write as they like.
    "A100-SXM4-80GB": "nvidia-a100-sxm4-80gb",
    "GeForce RTX 3090": "nvidia-rtx-3090",
    "nvidia a100 sxm4 80gb": "nvidia-a100-sxm4-80gb",
    "NVIDIA_A100-SXM4-80GB": "nvidia-a100-sxm4-80gb",
    "NVIDIA Tesla T4": "nvidia-t4",
    "T4": "nvidia-t4",
    "V100-SXM2-32GB": "nvidia-v100-sxm2-32gb",
    "RTX 4090": "nvidia-rtx-4090",
    "H100 PCIe": "nvidia-h100-pcie-80gb",
    "nvidia h200": "nvidia-h200-sxm-141gb",
    "AMD Instinct(TM) MI300X": "amd-mi300x",
    "MI355X": "amd-mi355x",
    "M4 Max": "apple-m4-max",
}


@pytest.mark.parametrize("name", REAL_NAMES)
def test_real_names(name) -> None:
    assert match_device_name(name) == REAL_NAMES[name]


@pytest.mark.parametrize("hardware_id", list_hardware())
def test_every_listed_name_leads_back(hardware_id) -> None:
    spec = get_hardware(hardware_id)
    for name in spec.device_names:
        found = match_device_name(
            name,
            spec.usable_memory_bytes,
            sm_count=spec.sm_count,
            board=" ".join(spec.boards),
        )
        assert found == hardware_id
        assert could_be(spec, name, spec.usable_memory_bytes, sm_count=spec.sm_count)


# Real devices without a file: each looks like one that has.
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("NVIDIA L40", "nvidia-l40s"),
        ("NVIDIA RTX A4000", "nvidia-rtx-a6000"),
        ("NVIDIA A100-SXM-64GB", "nvidia-a100-sxm4-80gb"),
        ("NVIDIA H100 64GB HBM2e", "nvidia-h100-sxm5-80gb"),
        ("NVIDIA GeForce RTX 4080", "nvidia-rtx-4090"),
        ("NVIDIA GeForce RTX 4090 D", "nvidia-rtx-4090"),
        ("AMD Instinct MI300A", "amd-mi300x"),
        ("AMD Instinct MI308X", "amd-mi300x"),
        ("AMD Instinct MI210", "amd-mi250x-gcd"),
        ("NVIDIA A10-24Q", "nvidia-a10"),
        ("NVIDIA RTX A5000 Laptop GPU", "nvidia-rtx-a5000"),
        ("NVIDIA GeForce RTX 3090 Ti", "nvidia-rtx-3090"),
    ],
)
def test_a_near_name_is_another_device(name, near) -> None:
    with pytest.raises(UnknownHardwareError, match="all other devices") as raised:
        match_device_name(name)
    assert near in raised.value.near_matches
    assert repr(name) in str(raised.value)
    assert "load_hardware" in str(raised.value)


@pytest.mark.parametrize("name", ["", "nvidia", "NVIDIA", "a100", "H100", "A100 80GB", "cpu"])
def test_part_of_a_name_is_no_name(name) -> None:
    with pytest.raises(UnknownHardwareError):
        match_device_name(name)


def test_memory_tells_variants_of_one_name_apart() -> None:
    assert match_device_name("NVIDIA H20", 102010716160) == "nvidia-h20-96gb"
    with pytest.raises(UnknownHardwareError, match="141 GiB is none of the devices of that name"):
        match_device_name("NVIDIA H20", 141 * GIB)


def test_units_and_memory_tell_orin_modules_apart() -> None:
    found = match_device_name("Orin", 65893089280, sm_count=16)
    assert found == "nvidia-jetson-agx-orin-64gb"
    assert match_device_name("Orin", 16136011776, sm_count=8) == "nvidia-jetson-orin-nx-16gb"
    assert match_device_name("Orin", int(3.4 * GIB), sm_count=4) == "nvidia-jetson-orin-nano-4gb"
    # An AGX Orin of 32 GB has no file; one of 64 GB in a lower power mode has fewer units.
    for memory_bytes, units in ((30 * GIB, 14), (60 * GIB, 8), (15 * GIB, 4)):
        with pytest.raises(UnknownHardwareError, match=r"64 GiB, 16 units.*nvpmodel"):
            match_device_name("Orin", memory_bytes, sm_count=units)
    with pytest.raises(UnknownHardwareError, match="only the board tells them apart") as raised:
        match_device_name("Orin", 7987728384, sm_count=8)
    assert raised.value.near_matches == ("nvidia-jetson-orin-nano-8gb", "nvidia-jetson-orin-nx-8gb")
    for part, expected in (("p3767-0003", "nano"), ("p3767-0005", "nano"), ("p3767-0001", "nx")):
        board = f"nvidia,p3768-0000+{part} nvidia,tegra234"
        found = match_device_name("Orin", 7987728384, sm_count=8, board=board)
        assert found == f"nvidia-jetson-orin-{expected}-8gb"


@pytest.mark.parametrize("name", ["Orin", "Orin (nvgpu)", "NVIDIA Tegra Orin (nvgpu)"])
def test_a_name_of_several_modules_asks_for_more(name) -> None:
    assert match_device_name(name, int(61.37 * GIB), sm_count=16) == "nvidia-jetson-agx-orin-64gb"
    with pytest.raises(UnknownHardwareError, match=r"names several.*--hardware ID") as raised:
        match_device_name(name)
    assert len(raised.value.near_matches) == 5


# (name, GiB, CUs, gcnArchName) -> the device, or what the refusal says.
ROCM = {
    ("AMD Instinct MI300X OAM", 192, 304, None): "amd-mi300x",
    ("AMD Instinct MI300X VF", 192, 304, "gfx942"): "amd-mi300x",
    ("AMD Instinct MI325X OAM", 256, 304, None): "amd-mi325x",
    ("AMD INSTINCT MI250X (MCM) OAM AC MBA", 64, 110, None): "amd-mi250x-gcd",
    ("AMD Instinct", 192, 304, "gfx942"): "amd-mi300x",
    ("AMD Radeon(TM) Graphics", 256, 304, "gfx942:sramecc+:xnack-"): "amd-mi325x",
    ("", 64, 110, "gfx90a:sramecc+:xnack-"): "amd-mi250x-gcd",
    # Products cut from one with a file, partitions of one, and twins of one.
    ("AMD Instinct MI300X OAM", 192, 80, "gfx942"): "none of the devices",
    ("AMD Instinct MI300X VF", 24, 38, "gfx942"): "none of the devices.*partition",
    ("AMD Instinct MI300X", 192, 304, "gfx90a"): "none of the devices",
    ("AMD INSTINCT MI250 (MCM) OAM AC MBA", 64, 104, "gfx90a"): "no device file lists",
    ("AMD Instinct MI300X HF", 192, 304, "gfx942"): "no device file lists",
    ("", 192, 80, "gfx942"): "none of the devices that ROCm may mean",
    ("", 128, 228, "gfx942"): "none of the devices",
    ("", 64, 104, "gfx90a"): "none of the devices",
    ("", 24, 96, "gfx1100"): "none of the devices",
    ("AMD Radeon Graphics", 288, 256, "gfx950"): "amd-mi355x or the AMD Instinct MI350X",
    # What is missing is named.
    ("AMD Instinct MI300X OAM", 192, None, None): "unit count would tell",
    ("AMD Instinct MI300X OAM", None, None, "gfx942"): "memory and unit count would tell",
    ("AMD Radeon Graphics", 192, 304, None): r"ROCm named no device.*gcnArchName.*--hardware",
    ("", 192, 304, "9.0"): "ROCm named no device",
    ("", None, None, None): r"gcnArchName\) and memory and unit count",
}


@pytest.mark.parametrize("printed", ROCM, ids=str)
def test_what_rocm_prints(printed) -> None:
    name, gib, units, architecture = printed
    memory_bytes = gib and gib * GIB
    given = {"sm_count": units, "architecture": architecture}
    if ROCM[printed] in list_hardware():
        assert match_device_name(name, memory_bytes, **given) == ROCM[printed]
        return
    with pytest.raises(UnknownHardwareError, match=ROCM[printed]):
        match_device_name(name, memory_bytes, **given)


@pytest.mark.parametrize(
    ("hardware_id", "name", "gib", "units", "expected"),
    [
        ("nvidia-a100-sxm4-80gb", "A100-SXM4-80GB", None, None, True),
        ("nvidia-a100-sxm4-80gb", "nvidia-a100-sxm4-80gb", None, None, True),
        ("nvidia-a100-sxm4-80gb", "A100-SXM4-40GB", None, None, False),
        ("nvidia-a100-sxm4-80gb", "NVIDIA A100-SXM4-80GB", 10, None, False),
        ("nvidia-a100-sxm4-80gb", "AMD Radeon Graphics", None, None, False),
        ("nvidia-jetson-orin-nano-8gb", "Orin (nvgpu)", 7.4, 8, True),
        ("nvidia-jetson-orin-nano-8gb", "Orin", 15, 8, False),
        ("amd-mi300x", "", 192, 304, True),
        ("amd-mi300x", "AMD Radeon Graphics", 256, 304, False),
        ("amd-mi300x", "AMD Instinct MI300X OAM", 192, 80, False),
    ],
)
def test_could_it_be_this_device(hardware_id, name, gib, units, expected) -> None:
    memory_bytes = gib and int(gib * GIB)
    assert could_be(get_hardware(hardware_id), name, memory_bytes, sm_count=units) is expected


def test_one_name_of_several_devices_needs_the_memory() -> None:
    name = "AMD Instinct MI250X"
    assert match_device_name(name, 64 * GIB) == "amd-mi250x-gcd"
    assert match_device_name(name, 128 * GIB) == "amd-mi250x"
    # An MI250 shares the name with the MI250X and has fewer units.
    with pytest.raises(UnknownHardwareError):
        match_device_name(f"{name} / MI250", 64 * GIB, sm_count=104)
    with pytest.raises(UnknownHardwareError, match="names several devices") as raised:
        match_device_name(name)
    assert raised.value.near_matches == ("amd-mi250x", "amd-mi250x-gcd")


def test_a_mig_slice_is_not_its_device() -> None:
    with pytest.raises(UnknownHardwareError, match="MIG slice"):
        match_device_name("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10 * GIB)


# Total memory as NVML and torch report it for these cards.
@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("NVIDIA A100-SXM4-80GB", 85899345920),  # NVML counts all of it
        ("NVIDIA A100-SXM4-80GB", 85097971712),
        ("NVIDIA A10G", 23684186112),
        ("NVIDIA L40S", 47803531264),
        ("Tesla T4", 15843721216),
        ("NVIDIA H200", 150754820096),
    ],
)
def test_reported_memory_is_accepted(name, reported) -> None:
    assert match_device_name(name, reported) == REAL_NAMES[name]
