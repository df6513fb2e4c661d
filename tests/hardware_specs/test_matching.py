"""Device names as drivers print them: each is one device, and a near name is none."""

from __future__ import annotations

import pytest

from hardware_specs import UnknownHardwareError, get_hardware, list_hardware, match_device_name

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
    "Orin": "nvidia-jetson-agx-orin-64gb",
    # Drivers before 2021 left the vendor out.
    "A100-SXM4-80GB": "nvidia-a100-sxm4-80gb",
    "GeForce RTX 3090": "nvidia-rtx-3090",
}


@pytest.mark.parametrize("name", REAL_NAMES)
def test_real_names(name) -> None:
    assert match_device_name(name) == REAL_NAMES[name]


@pytest.mark.parametrize("hardware_id", list_hardware())
def test_every_listed_name_leads_back(hardware_id) -> None:
    spec = get_hardware(hardware_id)
    for name in spec.device_names:
        found = match_device_name(name, spec.usable_memory_bytes, sm_count=spec.sm_count)
        assert found == hardware_id


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
    ],
)
def test_a_near_name_is_another_device(name, near) -> None:
    with pytest.raises(UnknownHardwareError, match="all other devices") as raised:
        match_device_name(name)
    assert near in raised.value.near_matches
    assert repr(name) in str(raised.value)
    assert "load_hardware" in str(raised.value)


@pytest.mark.parametrize("name", ["", "nvidia", "NVIDIA", "a100", "H100", "nvidia h200", "cpu"])
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
    for memory_bytes, units in ((30 * GIB, 14), (15 * GIB, 8), (60 * GIB, 8)):
        with pytest.raises(UnknownHardwareError, match="64 GiB, 16 units"):
            match_device_name("Orin", memory_bytes, sm_count=units)


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
