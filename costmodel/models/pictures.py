"""The size of pictures, read from their headers: nothing is decoded."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidFileError, InvalidInputError
from hardware_specs.files.reading import invalid, open_file, pillow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

#: EXIF's tag of the orientation, and its values that turn a picture by a quarter.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def picture_files(paths: Iterable[str | PathLike[str]]) -> list[Path]:
    """Return picture files; of a folder those whose name ends as a picture's does, in the order of names.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidInputError: a folder without a picture.
    """
    images, _ = pillow()
    files = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        endings = images.registered_extensions()
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in endings)
        if not found:
            raise InvalidInputError(f"the folder {path} has no picture in it")
        files += found
    return files


def picture_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Return a picture's (height, width) in pixels as it is seen: a photo may be stored on its side.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidFileError: no regular file, or no picture.
    """
    images, unidentified = pillow()
    try:
        with open_file(path, "picture") as file, warnings.catch_warnings():
            # Pillow warns of what decoding a huge picture would take.
            warnings.simplefilter("ignore")
            with images.open(file) as picture:
                width, height = picture.size
                turned = picture.getexif().get(_ORIENTATION) in _TURNED
    except InvalidFileError:
        raise
    except unidentified:
        raise invalid(path, ValueError("no picture that can be read")) from None
    except (
        *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError),
        *(struct.error, images.DecompressionBombError),
    ) as error:  # a damaged header raises whatever its reader trips over
        raise invalid(path, error) from None
    return (width, height) if turned else (height, width)
