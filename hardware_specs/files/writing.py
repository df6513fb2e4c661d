"""The one writer of files: a file appears whole or not at all, and an old one stays until then.

Content goes into a temporary file in the same folder, is flushed to the disk and moved into place in
one step: whatever fails, a full disk, an interrupt, a kill, the old file is still there in full.
A killed writer leaves its temporary file behind; its name carries the host, the process and the
process's start, so that the next writer of the same file can tell that its owner is dead.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import platform
import stat
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_specs.errors import InvalidInputError, OutputError
from hardware_specs.files.reading import as_path, show_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike
    from typing import BinaryIO

#: Suffix of a file that is still being written; hidden, and no reader takes it for a result.
PARTIAL_SUFFIX = ".partial"

_NUMBERS = itertools.count()

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and start again",
    errno.EDQUOT: "the quota is used up; free some space and start again",
    errno.EFBIG: "the file is larger than this system allows",
    errno.EROFS: "the file system is read-only; give another folder",
    errno.EACCES: "no permission to write there; give another folder",
    errno.EPERM: "no permission to write there; give another folder",
    errno.ENOENT: "there is no such folder; create it, or give another",
    errno.ENOTDIR: "a part of the path is a file; give another folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.EEXIST: "it is a file; give a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "the link leads in a circle",
}


def output_error(path: str | PathLike[str], error: Exception) -> OutputError:
    """Return the project's error for a failed write, with what to do about it."""
    number = getattr(error, "errno", None) or 0
    reason = getattr(error, "strerror", None) or str(error)
    # What the system says of an error is worth telling only where there is nothing better.
    said = number in _REASONS and reason == os.strerror(number)
    reason = _REASONS[number] if said else f"{reason}; give another place"
    return OutputError(f"cannot write {show_path(path)}: {reason}")


@contextlib.contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its place only when the block ends without an error.

    A link keeps pointing where it points, and its target is replaced. A new file has the rights that
    the umask grants; a replaced one keeps its own.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, the path leads to a folder
            or a device, or the like.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = pathlib.Path(folder, "a.txt")
    ...     with replacing(target) as file:
    ...         _ = file.write(b"whole"), target.exists()
    ...     target.read_bytes(), len(list(target.parent.iterdir()))
    (b'whole', 1)
    """
    try:
        target = Path(os.path.realpath(path))
        mode = _mode_of(target)
        _clear_dead(target)
        partial = target.with_name(f"{_prefix(target)}{_owner()}.{next(_NUMBERS)}{PARTIAL_SUFFIX}")
        descriptor = os.open(
            partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
    except (OSError, ValueError) as error:
        raise output_error(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException as error:
        # A read-only folder cannot be cleaned, and the first error is the one to tell.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise output_error(path, error) from error
        raise
    _flush_folder(target.parent)


@contextlib.contextmanager
def appending(path: str | PathLike[str]) -> Iterator[Callable[[str], None]]:
    r"""Open a file to which whole lines are added, each on the disk before the next is made.

    A line that a kill cut short stays a line of its own.

    Args:
        path: where; its folder must exist.

    Raises:
        OutputError: as `replacing`.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = pathlib.Path(folder, "a.jsonl")
    ...     for line in ("1", "2"):
    ...         with appending(target) as append:
    ...             append(line)
    ...     target.read_text()
    '1\n2\n'
    """
    try:
        file = open(path, "ab+")  # noqa: PTH123, SIM115
    except (OSError, ValueError) as error:
        raise output_error(path, error) from error

    def append(line: str) -> None:
        try:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise output_error(path, error) from error

    with file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            append("")
        yield append


def write_file(path: str | PathLike[str], content: str | bytes) -> Path:
    """Write bytes, or text as UTF-8, so that a file is either there in full or not at all; return its path.

    Raises:
        OutputError: as `replacing`.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


def check_ending(path: str | PathLike[str], *endings: str) -> str:
    """Return a file's ending in lower case; refuse one that is none of those it may have.

    Asked before anything is computed, so that no work is lost, and no other file written, over a slip.

    Raises:
        InvalidInputError: another ending.

    >>> check_ending("Rows.CSV", ".csv", ".parquet")
    '.csv'
    """
    ending = as_path(path).suffix.lower()
    if ending not in endings:
        *most, last = endings
        known = f"{', '.join(most)} or {last}" if most else last
        raise InvalidInputError(f"{show_path(path)!r} must end in {known}")
    return ending


def prepare_folder(path: str | PathLike[str]) -> Path:
    """Create a folder for results, prove that it can be written, and return its path.

    Raises:
        OutputError: it cannot be created or written.
    """
    folder = as_path(path)
    probe = folder / f".probe.{os.getpid()}{PARTIAL_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another machine may have a process of this number
    except (OSError, ValueError) as error:
        raise output_error(folder, error) from error
    return folder


def _mode_of(target: Path) -> int | None:
    """Return the rights of a file that will be replaced, or None where there is none yet."""
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    # Moving a file over /dev/null would replace the device for everybody.
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only")
    return stat.S_IMODE(found.st_mode)


def _prefix(target: Path) -> str:
    """Return how the names of a target's temporary files begin: short, whatever its own length."""
    return f".{target.stem[:20]}-{zlib.crc32(os.fsencode(target.name)):08x}."


@cache
def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _owner() -> str:
    return f"{_host()}-{os.getpid()}-{start_of(os.getpid()) or 0}"


def start_of(process: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None where nothing says so."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The process's name stands in brackets and may hold anything; the start is the 20th field after.
    return int(fields.rpartition(")")[2].split()[19])


def is_alive(process: int, started: int) -> bool:
    """Return whether the process of this number that started then still runs; True where nobody knows."""
    if os.name != "posix":  # elsewhere signal 0 is no mere question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    # Process numbers are used again: another start is another process.
    return started in (0, start_of(process) or 0)


def _clear_dead(target: Path) -> None:
    """Remove what dead writers of this very file left behind; leave everything else alone."""
    prefix = _prefix(target)
    with os.scandir(target.parent) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.startswith(prefix) and entry.name.endswith(PARTIAL_SUFFIX)
        ]
    for name in names:
        owner = name[len(prefix) :].split(".")[0].split("-")
        # A folder may be shared with other hosts, whose processes cannot be seen from here.
        is_ours = len(owner) == 3 and owner[0] == _host() and "".join(owner[1:]).isdecimal()
        if is_ours and not is_alive(int(owner[1]), int(owner[2])):
            with contextlib.suppress(OSError):
                target.with_name(name).unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    # The move itself lives in the folder: without this a power cut may undo it. The file is whole
    # either way, so a file system that cannot do it is no error.
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
