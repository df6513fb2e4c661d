"""Run by `make wheel` in an environment that has the wheel and nothing else of the project.

Every shipped device, model, calibration and published table is opened: a data file that the wheel
lacks fails here, and so does an import of what only a working tree has.
"""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Open everything that ships."""
    import costmodel
    import hardware_specs
    from costmodel import calibration, models, reproduce

    for package in (costmodel, hardware_specs):
        home = Path(package.__file__).resolve()
        assert home.is_relative_to(sys.prefix), f"{home} is not the installed wheel's"
    devices = [hardware_specs.get_hardware(name) for name in hardware_specs.list_hardware()]
    names = models.list_models()
    for name in names:
        assert costmodel.estimate(name, devices[0], precision="fp32").totals.flops > 0
    for name in calibration.list_calibrations():
        calibration.Calibration.load(name)
    for name in reproduce.list_tables():
        reproduce.reproduce(name)
    from vlm_roofline.explorer import Axes, explorer_html

    axes = Axes(method=("fastv",), keep=(0.5,), batch_size=(1,), output_tokens=(8,))
    assert "<script>" in explorer_html(["llava-1.5-7b"], ["nvidia-l40s"], axes)
    program = Path(sys.prefix, "bin", "vlm-roofline")
    command = [str(program), "estimate", "llava-1.5-7b", "--hardware", "nvidia-a100-sxm4-80gb"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "prefill" in printed, printed
    print(f"the installed wheel has its {len(devices)} devices, {len(names)} models and tables")


if __name__ == "__main__":
    main()
