"""Detection, with drivers replaced at the boundary: NVML and torch as they answer, or fail."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hardware_specs import (
    DeviceUnavailableError,
    InvalidInputError,
    UnknownHardwareError,
    detect,
    detect_hardware,
    get_hardware,
)


class NVMLError(Exception):
    pass


class FakeNVML:
    """NVML of a machine with the given GPUs: (name, memory, MIG mode), None where not supported."""

    NVMLError = NVMLError

    def __init__(self, *gpus, broken=False):
        self.gpus, self.broken, self.open = gpus, broken, 0

    def nvmlInit(self):
        if self.broken:
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}abc"

    def nvmlDeviceGetName(self, handle):
        return self.gpus[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=self._supported(self.gpus[handle][1]))

    def nvmlDeviceGetMigMode(self, handle):
        return self._supported(self.gpus[handle][2]), 0

    @staticmethod
    def _supported(value):
        if value is None:
            raise NVMLError("Not Supported")
        return value


class FakeTorch:
    """torch of a machine with one GPU, or none."""

    def __init__(self, name=None, total_memory=0, units=0, architecture=None):
        self.properties = SimpleNamespace(
            name=name, total_memory=total_memory, multi_processor_count=units
        )
        if architecture is not None:
            self.properties.gcnArchName = architecture
        self.cuda = SimpleNamespace(
            is_available=lambda: name is not None,
            current_device=lambda: 0,
            get_device_properties=lambda index: self.properties,
        )


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that puts this machine's drivers in place."""

    def build(*, nvml=None, torch=None, torch_loaded=False, gpu_file=False, board=None):
        modules = {"pynvml": nvml, "torch": torch}
        asked = []

        def import_fake(name):
            asked.append(name)
            return modules[name]

        loaded = {"torch": torch} if torch_loaded else {}
        monkeypatch.setattr(detect, "find_spec", lambda name: modules.get(name))
        monkeypatch.setattr(detect, "import_module", import_fake)
        monkeypatch.setattr(detect, "sys", SimpleNamespace(modules=loaded))
        monkeypatch.setattr(detect, "_GPU_FILES", ("/dev/null",) if gpu_file else ())
        monkeypatch.setattr(detect, "measure_cpu", lambda: "the CPU")
        file = tmp_path / "compatible"
        if board is not None:
            file.write_bytes(board)
        monkeypatch.setattr(detect, "_BOARD_FILE", file)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return asked

    return build


A100 = ("NVIDIA A100-SXM4-80GB", 85899345920, 0)
T4 = ("Tesla T4", 15843721216, None)


def test_nvml_answers_without_torch(machine) -> None:
    nvml = FakeNVML(A100)
    asked = machine(nvml=nvml, torch=FakeTorch("NVIDIA H200"))
    assert detect_hardware().id == "nvidia-a100-sxm4-80gb"
    assert asked == ["pynvml"]
    assert nvml.open == 0


def test_names_may_be_bytes_and_memory_unknown(machine) -> None:
    machine(nvml=FakeNVML((b"NVIDIA GH200 480GB", None, None)))
    assert detect_hardware("cuda") == get_hardware("nvidia-gh200-96gb")


def test_the_memory_this_machines_driver_shows_is_taken(machine) -> None:
    machine(nvml=FakeNVML(T4))
    spec = detect_hardware()
    assert get_hardware("nvidia-t4").memory_reported_bytes == 15360 * 2**20
    assert spec.usable_memory_bytes == 15843721216
    assert spec.provenance["memory_reported_bytes"].evidence == "measured"
    assert spec.peaks == get_hardware("nvidia-t4").peaks


def test_torch_answers_when_it_is_loaded(machine) -> None:
    torch = FakeTorch("NVIDIA H100 80GB HBM3", 85029027840, 132)
    asked = machine(nvml=FakeNVML(A100), torch=torch, torch_loaded=True)
    assert detect_hardware().id == "nvidia-h100-sxm5-80gb"
    assert asked == ["torch"]


@pytest.mark.parametrize("nvml", [None, FakeNVML(broken=True), FakeNVML()])
def test_rocm_and_jetson_are_found_by_torch(machine, nvml) -> None:
    torch = FakeTorch("AMD Instinct MI300X", 205822885888, 304)
    machine(nvml=nvml, torch=torch, gpu_file=True)
    assert detect_hardware().id == "amd-mi300x"


# (what ROCm prints, total memory, CUs, gcnArchName) as torch shows them -> the device.
ROCM = {
    ("AMD Instinct MI300X OAM", 205822885888, 304, "gfx942:sramecc+:xnack-"): "amd-mi300x",
    ("AMD Instinct MI300X VF", 205822885888, 304, "gfx942:sramecc+:xnack-"): "amd-mi300x",
    ("AMD Radeon Graphics", 206141652992, 304, "gfx942:sramecc+:xnack-"): "amd-mi300x",
    ("", 205822885888, 304, "gfx942:sramecc+:xnack-"): "amd-mi300x",
    ("", 256 * 2**30, 304, "gfx942"): "amd-mi325x",
    ("AMD Radeon Graphics", 68702699520, 110, "gfx90a:sramecc+:xnack-"): "amd-mi250x-gcd",
    ("AMD Instinct MI355X", 309220868096, 256, "gfx950:sramecc+:xnack-"): "amd-mi355x",
}


@pytest.mark.parametrize("printed", ROCM, ids=str)
def test_rocm_by_name_or_by_architecture_memory_and_units(machine, printed) -> None:
    machine(torch=FakeTorch(*printed), gpu_file=True)
    spec = detect_hardware()
    assert spec.id == ROCM[printed]
    assert spec.memory_reported_bytes == printed[1]


ORIN = ("Orin (nvgpu)", None, None)


def test_a_jetson_that_nvml_only_names_is_found_by_torch(machine) -> None:
    torch = FakeTorch("Orin", int(61.37 * 2**30), 16)
    asked = machine(nvml=FakeNVML(ORIN), torch=torch)
    assert detect_hardware().id == "nvidia-jetson-agx-orin-64gb"
    assert asked == ["pynvml", "torch"]
    machine(nvml=FakeNVML(ORIN), torch=FakeTorch("Orin", int(29.9 * 2**30), 14))
    with pytest.raises(UnknownHardwareError, match="none of the devices of that name"):
        detect_hardware()


@pytest.mark.parametrize("torch", [None, FakeTorch()], ids=["no torch", "torch without CUDA"])
def test_a_jetson_without_torch_is_asked_for(machine, torch) -> None:
    machine(nvml=FakeNVML(ORIN), torch=torch)
    with pytest.raises(UnknownHardwareError, match=r"orin-nx-16gb.*--hardware ID"):
        detect_hardware()


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0", "nvidia-jetson-orin-nano-8gb"),
        (b"nvidia,p3768-0000+p3767-0001\0nvidia,tegra234\0", "nvidia-jetson-orin-nx-8gb"),
    ],
)
def test_the_board_tells_modules_of_one_size_apart(machine, part, expected) -> None:
    machine(nvml=FakeNVML(ORIN), torch=FakeTorch("Orin", 7987728384, 8), board=part)
    assert detect_hardware().id == expected


@pytest.mark.parametrize(
    ("name", "memory_bytes", "units", "expected"),
    [
        ("NVIDIA GB10", 128523960320, 48, "nvidia-dgx-spark-128gb"),
        ("NVIDIA Thor", 131881680896, 20, "nvidia-jetson-agx-thor-128gb"),
    ],
)
def test_memory_shared_with_the_host_comes_from_torch(
    machine, name, memory_bytes, units, expected
) -> None:
    machine(nvml=FakeNVML((name, None, None)), torch=FakeTorch(name, memory_bytes, units))
    spec = detect_hardware()
    assert (spec.id, spec.memory_reported_bytes) == (expected, memory_bytes)
    machine(nvml=FakeNVML((name, None, None)))
    assert detect_hardware().id == expected


def test_torch_is_not_imported_where_there_is_no_gpu(machine) -> None:
    asked = machine(nvml=FakeNVML(broken=True), torch=FakeTorch())
    assert detect_hardware() == "the CPU"
    assert asked == ["pynvml"]


def test_gpus_that_differ_are_left_to_cuda(machine) -> None:
    machine(nvml=FakeNVML(T4, A100), torch=FakeTorch(A100[0], A100[1], 108))
    assert detect_hardware().id == "nvidia-a100-sxm4-80gb"
    machine(nvml=FakeNVML(T4, A100))
    assert detect_hardware().id == "nvidia-t4"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", "nvidia-a100-sxm4-80gb"),
        ("0", "nvidia-t4"),
        ("GPU-1", "nvidia-a100-sxm4-80gb"),
        ("1,7,0", "nvidia-a100-sxm4-80gb"),
    ],
)
def test_cuda_visible_devices(machine, monkeypatch, visible, expected) -> None:
    machine(nvml=FakeNVML(T4, A100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert detect_hardware().id == expected


@pytest.mark.parametrize("visible", ["", "-1", "none", "7"])
def test_hidden_gpus_are_not_found(machine, monkeypatch, visible) -> None:
    machine(nvml=FakeNVML(T4, A100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert detect_hardware() == "the CPU"


def test_an_unknown_gpu_is_an_error_and_no_other_device(machine) -> None:
    machine(nvml=FakeNVML(("NVIDIA RTX 9999", 85899345920, 0)))
    with pytest.raises(UnknownHardwareError, match=r"'NVIDIA RTX 9999'.*load_hardware"):
        detect_hardware()


def test_a_gpu_cut_into_slices_is_an_error(machine) -> None:
    machine(nvml=FakeNVML(("NVIDIA A100-SXM4-80GB", 85899345920, 1)))
    with pytest.raises(UnknownHardwareError, match="MIG slice"):
        detect_hardware()


def test_no_gpu(machine) -> None:
    machine()
    assert detect_hardware() == detect_hardware("cpu") == "the CPU"
    with pytest.raises(DeviceUnavailableError, match="neither NVML nor torch"):
        detect_hardware("cuda")
    with pytest.raises(InvalidInputError, match="auto, cuda, cpu"):
        detect_hardware("tpu")


def test_asking_for_the_cpu_asks_no_driver(machine) -> None:
    asked = machine(nvml=FakeNVML(A100), torch=FakeTorch("NVIDIA H200"))
    assert detect_hardware("cpu") == "the CPU"
    assert asked == []


@pytest.mark.gpu
def test_this_machines_gpu_is_known() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    spec = detect_hardware("cuda")
    properties = torch.cuda.get_device_properties(0)
    assert properties.name.removeprefix("NVIDIA ") in {
        name.removeprefix("NVIDIA ") for name in spec.device_names
    }
    assert properties.multi_processor_count == spec.sm_count
    assert properties.total_memory <= spec.memory_bytes
