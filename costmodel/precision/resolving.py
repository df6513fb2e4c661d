"""From what was asked, what the checkpoint is and what the device has, to what is priced.

`auto` is the only place where one dtype stands in for another: a checkpoint's own precision where the
device has it, and what the device has where it does not, with a warning. A precision that is named is
priced as named, or refused for the arithmetic that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costmodel.precision.arithmetic import on_device
from costmodel.precision.names import parse_precision, spelled
from costmodel.precision.numerics import Resolved
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.models import ModelConfig
    from costmodel.precision.checkpoint import Checkpoint
    from costmodel.precision.numerics import Precision
    from hardware_specs import HardwareSpec

AUTO = "auto"


def resolve_precision(
    precision: str | Mapping[str, str] | Precision, model: ModelConfig, hardware: HardwareSpec
) -> Resolved:
    """Return the numerics that a request is priced in.

    `auto` is the checkpoint's own precision, else FP16 where the device has it, else what it has.

    Raises:
        UnknownPrecisionError: no such name.
        InvalidFileError: a checkpoint whose precision is unknown, or whose bytes the file cannot tell.
        MissingPeakError: a device with no floating arithmetic at all.

    >>> from costmodel import load_model
    >>> from hardware_specs import get_hardware
    >>> found = resolve_precision("auto", load_model("llava-1.5-7b"), get_hardware("google-tpu-v5e"))
    >>> found.precision.name
    'bf16'
    """
    if not isinstance(precision, str) or spelled(precision) != AUTO:
        if isinstance(precision, str) and AUTO in spelled(precision).replace("=", ",").split(","):
            raise InvalidInputError(f"precision {precision!r}: auto stands alone, for all modules")
        return Resolved(parse_precision(precision), (), "as given")
    checkpoint = checkpoint_of(model)
    if checkpoint is None or (checkpoint.quantisation is None and checkpoint.text is None):
        found, _ = on_device("fp16", hardware)
        origin = "no checkpoint" if checkpoint is None else "a checkpoint without a dtype"
        return Resolved(parse_precision(found), (), f"auto, {origin}: {found}")
    from costmodel.precision.fitted import of_checkpoint

    return of_checkpoint(checkpoint, model, hardware)


def checkpoint_of(model: ModelConfig) -> Checkpoint | None:
    """Return a checkpoint's own precision as its config says it, or None for a shape alone.

    Raises:
        InvalidFileError: a dtype or a quantisation that is unknown.

    >>> from costmodel import load_model
    >>> checkpoint_of(load_model("llava-1.5-7b")) is None
    True
    """
    if not model.is_checkpoint:
        return None
    from costmodel.precision.checkpoint import read_checkpoint

    return read_checkpoint(model.config_json, model.source)
