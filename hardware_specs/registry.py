"""Look a device up: one file per device, read when it is asked for and kept."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from hardware_specs.errors import InvalidFileError, UnknownHardwareError
from hardware_specs.spec import HardwareSpec

DATA = Path(__file__).parent / "data"

#: Files beside the devices that describe none.
_NO_DEVICE = frozenset({"sources", "disagreements"})

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@cache
def list_hardware() -> tuple[str, ...]:
    """Return the ids of the shipped devices, sorted.

    >>> "nvidia-a100-sxm4-80gb" in list_hardware()
    True
    """
    return tuple(sorted(p.stem for p in DATA.glob("*.yaml") if p.stem not in _NO_DEVICE))


def get_hardware(hardware: str | Path | HardwareSpec) -> HardwareSpec:
    """Return a device by id, or from a file of your own.

    Args:
        hardware: an id (`list_hardware`), a path that ends in `.yaml` or `.yml`, or a
            `HardwareSpec`, which is returned as it is.

    Raises:
        UnknownHardwareError: no such id; carries near matches.
        InvalidFileError: the file does not hold a device.

    >>> get_hardware("nvidia-a100-sxm4-80gb").bandwidth_bytes_per_s
    2039000000000.0
    """
    if isinstance(hardware, HardwareSpec):
        return hardware
    text = str(hardware)
    if text.endswith((".yaml", ".yml")):
        return load_hardware(text)
    # The name check keeps a path such as ../x from being read as an id.
    if not _ID.fullmatch(text) or text in _NO_DEVICE:
        raise UnknownHardwareError(hardware, list_hardware())
    return _shipped(text)


@cache
def _shipped(hardware_id: str) -> HardwareSpec:
    path = DATA / f"{hardware_id}.yaml"
    if not path.is_file():
        raise UnknownHardwareError(hardware_id, list_hardware())
    return _read(path)


def load_hardware(path: str | Path) -> HardwareSpec:
    """Return the device that a YAML file of your own describes.

    The file is read anew at every call. `hardware_specs.schema` shows what it looks like; every
    shipped file is an example.

    Args:
        path: the file; its name without the ending is the device's id.

    Raises:
        InvalidFileError: the file cannot be read or does not hold a device.
    """
    from hardware_specs.files.reading import user_path

    return _read(user_path(path))


def _read(path: Path) -> HardwareSpec:
    from hardware_specs.build import build_spec
    from hardware_specs.files.reading import invalid, read_yaml
    from hardware_specs.schema import check_device

    document = read_yaml(path)
    try:
        return build_spec(check_device(document), hardware_id=path.stem)
    except InvalidFileError as error:
        raise invalid(path, error) from None
