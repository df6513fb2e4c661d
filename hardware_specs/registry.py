"""The registry of devices: one file per device, read when it is asked for and kept."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from hardware_specs.errors import InvalidFileError, UnknownHardwareError
from hardware_specs.names import USUAL, plain_name
from hardware_specs.spec import HardwareSpec

DATA = Path(__file__).parent / "data"

#: Files beside the devices that describe none.
_NO_DEVICE = frozenset({"sources", "disagreements"})

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")


@cache
def list_hardware() -> tuple[str, ...]:
    """Return the ids of the shipped devices, sorted.

    >>> "nvidia-a100-sxm4-80gb" in list_hardware()
    True
    """
    return tuple(sorted(p.stem for p in DATA.glob("*.yaml") if p.stem not in _NO_DEVICE))


def get_hardware(hardware: str | Path | HardwareSpec) -> HardwareSpec:
    """Return a device by its id, by an alias, or from a `.yaml` file; a `HardwareSpec` stays as it is.

    An alias leaves out the vendor (`l40s`, `rtx-4090`) or names a family, of which the usual member
    is taken (`h100`, `a100`, `v100`); the spec's `alias_note` says so. Case makes no difference.

    Raises:
        UnknownHardwareError: no such id; carries near matches.
        InvalidFileError: the file does not hold a device.

    >>> get_hardware("nvidia-a100-sxm4-80gb").bandwidth_bytes_per_s
    2039000000000.0
    >>> get_hardware("h100").id
    'nvidia-h100-sxm5-80gb'
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


def alias_note(hardware: object) -> str | None:
    """Return which device an alias was taken for, and which others it may mean; None for an id.

    >>> alias_note("V100")
    "'V100' is taken as nvidia-v100-sxm2-16gb; there is also: nvidia-v100-pcie-16gb, \
nvidia-v100-pcie-32gb, nvidia-v100-sxm2-32gb"
    >>> alias_note("nvidia-v100-sxm2-16gb") is None
    True
    """
    text = str(hardware)
    words = re.split(r"[ ._-]+", text.lower())
    # What begins with a vendor is an id, whole or mistyped.
    if not _ID.fullmatch(text) or words[0] in {i.partition("-")[0] for i in list_hardware()}:
        return None
    taken = _aliases().get(plain_name(text))
    if taken is None:
        return None
    others = [i for i in list_hardware() if i != taken and set(words) <= set(i.split("-"))]
    also = f"; there is also: {', '.join(others)}" if others else ""
    return f"{text!r} is taken as {taken}{also}"


@cache
def _aliases() -> dict[str, str]:
    """Return id by alias: every id without its vendor, and the usual member of each family."""
    return {plain_name(hardware_id): hardware_id for hardware_id in list_hardware()} | USUAL


@cache
def _shipped(name: str) -> HardwareSpec:
    hardware_id = name.lower()
    if hardware_id in list_hardware():
        # One object per device, so that a spec can be compared and kept by its identity.
        return _read(DATA / f"{name}.yaml") if name == hardware_id else _shipped(hardware_id)
    note = alias_note(name)
    if note is None:
        raise UnknownHardwareError(name, list_hardware())
    spec = _shipped(_aliases()[plain_name(name)])
    return replace(spec, alias_note=note)


def load_hardware(path: str | Path) -> HardwareSpec:
    """Return the device that a YAML file of your own describes; the file's name is the device's id.

    The file is read anew at every call. `hardware_specs.schema` shows what it looks like; every
    shipped file is an example.

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
