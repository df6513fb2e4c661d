from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hardware_specs.cpu import cpu_info, memory_bytes
from profiling.instruments.environment import (
    cpu_name,
    cpu_signature,
    describe_environment,
)
from profiling.instruments.nvml import AbsentMonitor

if TYPE_CHECKING:
    from pathlib import Path


def test_the_environment_says_what_matters_and_nothing_private() -> None:
    environment = describe_environment("cpu", AbsentMonitor("a CPU"))
    for name in ("python", "torch", "transformers", "threads", "cpu_name", "device_name"):
        assert environment[name], name
    text = json.dumps(environment)
    for secret in (socket.gethostname(), f"/{getpass.getuser()}/"):
        assert secret not in text
    assert environment["driver"] is None


def test_settings_that_change_the_cost_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert describe_environment("cpu")["variables"]["NVIDIA_TF32_OVERRIDE"] == "0"


def test_the_processor_is_named_from_the_systems_list(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text("processor : 0\nmodel name\t: AMD EPYC 9575F 64-Core Processor\n")
    assert cpu_name(cpu_info(listing)) == "AMD EPYC 9575F 64-Core Processor"
    assert cpu_signature(cpu_info(listing)) is None
    listing.write_text("cpu family : 26\nmodel : 2\nstepping : 1\n\ncpu family : 9\n")
    assert cpu_signature(cpu_info(listing)) == "family 26 model 2 stepping 1"
    assert cpu_name(cpu_info(tmp_path / "nothing"))


def test_memory_is_known_where_the_system_says() -> None:
    known = memory_bytes()
    assert known is None or known > 1 << 28


@pytest.mark.parametrize(
    "statement",
    ["import profiling", "import profiling; dir(profiling)", "import profiling.records.measurement",
     "import profiling.records.storage", "import profiling.records.samples",
     "import vlm_roofline.cli.profile",
     "import vlm_roofline.cli.count", "import profiling.records.frame", "import profiling.microbench.table",
     "from profiling import Measurement, load_measurements"],
)  # fmt: skip
def test_nothing_heavy_is_imported_before_it_is_used(statement: str) -> None:
    program = (
        f"{statement}\nimport sys\n"
        "heavy = {'torch', 'transformers', 'pandas', 'matplotlib', 'scipy', 'pynvml', 'fvcore'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    import profiling

    with pytest.raises(AttributeError, match="no attribute 'profle'"):
        profiling.profle  # noqa: B018
    assert callable(profiling.profile)
    assert "profile" in dir(profiling)
