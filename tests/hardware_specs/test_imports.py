"""What importing and looking up loads, seen from a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hardware_specs

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "scipy", "pyarrow", "rich", "typer")


def loaded_by(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing() -> None:
    loaded = loaded_by("import hardware_specs")
    assert loaded.isdisjoint({"yaml", "pydantic", "pydantic_core", "numpy", *HEAVY})
    # What the package needs to hand on its names when they are first asked for.
    assert {name for name in loaded if name.startswith("hardware_specs.")} == {
        "hardware_specs.lazily"
    }


def test_a_look_up_reads_one_device() -> None:
    loaded = loaded_by("import hardware_specs as h; h.get_hardware('nvidia-t4')")
    assert "yaml" in loaded
    assert loaded.isdisjoint({"numpy", *HEAVY})


def test_a_look_up_opens_one_device_file() -> None:
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0])))\n"
        "import hardware_specs as h; h.get_hardware('nvidia-t4')\n"
        "print('FILES', *[name.rsplit('/', 1)[-1] for name in opened if name.endswith('.yaml')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    files = run.stdout.split()
    assert sorted(files[1:]) == ["nvidia-t4.yaml", "sources.yaml"]


def test_detecting_without_a_gpu_loads_no_torch() -> None:
    code = "from hardware_specs.detect import reported_gpu; reported_gpu()"
    assert loaded_by(code).isdisjoint({"numpy", *HEAVY} - {"torch"})


@pytest.mark.parametrize("name", hardware_specs.__all__)
def test_public_names_are_there(name) -> None:
    assert getattr(hardware_specs, name).__doc__
    assert name in dir(hardware_specs)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'get_hardwares'"):
        _ = hardware_specs.get_hardwares
