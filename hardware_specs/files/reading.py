"""The one reader of users' files: regular files only, within bounds, and one error for all that fails.

A path that a user names may lead to a pipe that never ends, a device such as /dev/zero, a folder, a
loop of links or a sparse file of terabytes. Every reader of the project opens files here, so that
each of these is one `InvalidFileError` that names the file and the reason.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError, InvalidInputError
from hardware_specs.files.strict_json import parse_json
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from PIL.Image import Image

_MEGABYTE = 1_000_000
#: The largest file of each kind that is read; anything larger is something else.
MAX_BYTES = {
    "device file": 4 * _MEGABYTE,
    "model config": 16 * _MEGABYTE,
    "calibration": 16 * _MEGABYTE,
    "plan": 4 * _MEGABYTE,
    "sweep": 64 * _MEGABYTE,
    "record": 64 * _MEGABYTE,
    "op profile": 64 * _MEGABYTE,
    "table": 256 * _MEGABYTE,
    "picture": 256 * _MEGABYTE,
    "trace": 2_000 * _MEGABYTE,
    "weights file": 1_000_000 * _MEGABYTE,
    "packed records": 4_000 * _MEGABYTE,
}
#: Pixels of a picture: decoded to RGB they take three bytes each, and a small file may hold many.
MAX_PIXELS = 64_000_000

_REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "the link leads in a circle",
    errno.EACCES: "no permission to read it",
}


class DamagedFileWarning(UserWarning):
    """A file of several could not be read and was passed over."""


def warn_damaged(error: InvalidFileError) -> None:
    """Warn of a file that is passed over, so that one damaged file does not stop a whole folder."""
    warnings.warn(f"skipped {error}", DamagedFileWarning, stacklevel=3)


def as_path(path: object) -> Path:
    """Return a path.

    Raises:
        InvalidInputError: it is none.

    >>> as_path(5)
    Traceback (most recent call last):
    hardware_specs.errors.InvalidInputError: a path is text or a Path, not 5
    """
    if isinstance(path, (str, PathLike)) and isinstance(os.fspath(path), str):
        return Path(path)
    raise InvalidInputError(f"a path is text or a Path, not {shown(path)}")


def show_path(path: str | PathLike[str]) -> str:
    r"""Return a path as a message can carry it: short, and without control characters.

    >>> show_path("a\tb"), len(show_path("a" * 300))
    ('a\\tb', 240)
    """
    text = os.fspath(path)
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= 240 else f"{text[:97]}...{text[-140:]}"


def user_path(path: str | PathLike[str]) -> Path:
    """Return a path with a leading `~` replaced by the home folder.

    Raises:
        InvalidFileError: no user has that name.
    """
    try:
        return as_path(path).expanduser()
    except RuntimeError:
        raise InvalidFileError(f"{show_path(path)}: there is no such user") from None


def look(path: str | PathLike[str]) -> os.stat_result | None:
    """Return the status of what is at a path, or None where nothing is there.

    Raises:
        InvalidFileError: nothing can be at such a path: a name too long, a circle of links.
    """
    where = as_path(path)
    try:
        return where.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise invalid(path, error) from None


def is_folder(path: str | PathLike[str]) -> bool:
    """Tell whether a path leads to a folder.

    Raises:
        InvalidFileError: as `look`.
    """
    found = look(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def invalid(path: str | PathLike[str], error: Exception) -> InvalidFileError:
    """Return the project's error for a file that could not be read, with the reason in words."""
    if isinstance(error, OSError):
        code = error.errno or 0
        reason = _REASONS.get(code, (error.strerror or str(error)).lower())
    elif isinstance(error, UnicodeDecodeError):
        reason = f"byte {error.start} is no UTF-8 text"
    elif isinstance(error, InvalidFileError):
        reason = str(error)
    else:
        reason = " ".join(str(error).split())[:200]
    return InvalidFileError(f"{show_path(path)}: {reason}")


def regular_file(path: str | PathLike[str], kind: str) -> Path:
    """Return the path of a regular file that another library will open.

    Raises:
        InvalidFileError: as `open_file`.
    """
    open_file(path, kind).close()
    return Path(path)


def open_file(path: str | PathLike[str], kind: str) -> BinaryIO:
    """Open a regular file of at most `MAX_BYTES[kind]` bytes for reading.

    Raises:
        InvalidFileError: it is missing, too large, no regular file, or may not be read.
    """
    where = as_path(path)
    # Without O_NONBLOCK opening a pipe would wait for its writer for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(where, flags)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise InvalidFileError(f"{show_path(path)}: it is a folder, not a {kind}")
            if not stat.S_ISREG(found.st_mode):
                raise InvalidFileError(f"{show_path(path)}: not a regular file")
            if found.st_size > MAX_BYTES[kind]:
                raise _too_large(path, kind)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidFileError):
            raise
        raise invalid(path, error) from None


def _too_large(path: str | PathLike[str], kind: str) -> InvalidFileError:
    most = MAX_BYTES[kind] // _MEGABYTE
    return InvalidFileError(f"{show_path(path)}: larger than any {kind} ({most} MB)")


def read_bytes(path: str | PathLike[str], kind: str) -> bytes:
    """Return the content of a file.

    Raises:
        InvalidFileError: as `open_file`.
    """
    try:
        with open_file(path, kind) as file:
            content = file.read(os.fstat(file.fileno()).st_size)
            # A file may grow meanwhile, and some of the kernel's claim to be empty.
            while len(content) <= MAX_BYTES[kind] and (more := file.read(_MEGABYTE)):
                content += more
    except OSError as error:
        raise invalid(path, error) from None
    if len(content) > MAX_BYTES[kind]:
        raise _too_large(path, kind)
    return content


def read_text(path: str | PathLike[str], kind: str) -> str:
    """Return the UTF-8 text of a file, without the byte order mark that some editors put first.

    Raises:
        InvalidFileError: as `open_file`, or the bytes are no UTF-8.
    """
    try:
        return read_bytes(path, kind).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(path, error) from None


def read_json(path: str | PathLike[str], kind: str, *, infinite: bool = False) -> Any:
    """Return the JSON document in a file; `infinite` accepts `NaN` and `Infinity`.

    Raises:
        InvalidFileError: as `read_text`, or as `hardware_specs.files.strict_json.parse_json`.
    """
    text = read_text(path, kind)
    try:
        return parse_json(text, infinite=infinite)
    except InvalidFileError as error:
        raise invalid(path, error) from None


def read_lines(path: str | PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield (place, text) for every line of a packed file that is not empty.

    The file is streamed. A line ends at a line feed only: other characters that some call line ends
    may stand inside a JSON text.

    Raises:
        InvalidFileError: as `open_file`; a line is larger than a record, or no UTF-8 text.
    """
    most = MAX_BYTES["record"]
    with open_file(path, "packed records") as file:
        number = 0
        while True:
            number += 1
            place = f"{show_path(path)}, line {number}"
            try:
                line = file.readline(most + 1)
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidFileError(f"{place}: {invalid('', error)}") from None
            if not line:
                return
            if len(line) > most:
                raise InvalidFileError(f"{place}: larger than any record")
            if text.strip():
                yield place, text


def read_yaml(path: str | PathLike[str]) -> Any:
    """Return the YAML document in a device file as plain data.

    Raises:
        InvalidFileError: as `read_text`, or as `hardware_specs.files.strict_yaml.parse_yaml`.
    """
    from hardware_specs.files.strict_yaml import parse_yaml

    text = read_text(path, "device file")
    try:
        return parse_yaml(text)
    except InvalidFileError as error:
        raise invalid(path, error) from None


def files_under(folder: str | PathLike[str], endings: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder whose names end so, sorted; hidden ones are left out.

    Folders that may not be listed are passed over, and links to folders are not followed.
    """
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(endings) and not name.startswith(".")
    )


def pillow() -> tuple[Any, type[OSError]]:
    """Return Pillow's module of pictures, which says nothing on its own, and its error for what is none.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import logging

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        from hardware_specs.errors import MissingDependencyError

        raise MissingDependencyError("pillow", "profile") from None
    # Of a damaged file it tells by its log, which goes to stderr where nobody listens.
    log = logging.getLogger("PIL")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return Image, UnidentifiedImageError


def read_picture(path: str | PathLike[str]) -> Image:
    """Return a picture as RGB.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidFileError: as `open_file`; no picture, or one of more than `MAX_PIXELS`.
    """
    import io
    import struct

    Images, UnidentifiedImageError = pillow()
    content = read_bytes(path, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Images.DecompressionBombWarning)
            with Images.open(io.BytesIO(content)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise InvalidFileError(
                        f"{opened.width} x {opened.height} pixels; at most "
                        f"{MAX_PIXELS // 10**6} million are read"
                    )
                picture: Image = opened.convert("RGB")
                return picture
    except (
        *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError),
        *(struct.error, Images.DecompressionBombError, Images.DecompressionBombWarning),
    ) as error:  # a damaged picture raises whatever its decoder trips over
        if isinstance(error, UnidentifiedImageError):
            raise InvalidFileError(f"{show_path(path)}: no picture that can be read") from None
        raise invalid(path, error) from None
