"""Learned tensors that a method needs beside the model, from a safetensors file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import regular_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def read_tensors(method: str, path: Path, *endings: str) -> list[Tensor]:
    """Return the tensors of a file whose names end so, one for each ending.

    Raises:
        InvalidFileError: no readable file, or not one tensor for an ending.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular_file(path, "weights file"), framework="pt") as file:
            names = list(file.keys())
            found = []
            for ending in endings:
                fitting = [name for name in names if name.endswith(ending)]
                if len(fitting) != 1:
                    raise InvalidFileError(
                        f"{path} holds {len(fitting)} tensors named ...{ending}, and {method} needs "
                        f"one; it holds: {', '.join(names[:8])}"
                    )
                found.append(file.get_tensor(fitting[0]))
    except (OSError, SafetensorError) as error:
        raise InvalidFileError(f"{path} is no readable safetensors file: {error}") from error
    return found
