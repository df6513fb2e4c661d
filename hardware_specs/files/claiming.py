"""Claims: which of many workers, on this machine or others, makes a file of a shared folder.

A claim is a hidden folder beside the file, made by `mkdir`, with one file in it that is created
exclusively and bears its holder's name. Its holder touches that file every few seconds. A claim whose
process on this machine has ended, or that nobody touched for `STALE_S`, is taken over by renaming the
holder's file: its old name says whom the claim is taken from, so that of many who try one succeeds.

Ages are measured by the watcher's own clock that only runs forward, from the moment it first saw the
file as it is. So neither a clock that jumps nor machines whose clocks differ end a claim early.
"""

from __future__ import annotations

import itertools
import os
import platform
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_specs.files.writing import is_alive, output_error, start_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How often a holder touches its claim, in seconds.
BEAT_S = 10.0
#: A claim that was not touched for so long, in seconds, is taken over. Network file systems show a
#: change of another machine up to a minute late.
STALE_S = 120.0

_NUMBERS = itertools.count()


class Claims:
    """One worker's view of the claims in a folder.

    Args:
        stale_s: seconds after which an untouched claim is taken over.
        beat_s: seconds between two touches of a claim that is held.
    """

    def __init__(self, stale_s: float = STALE_S, beat_s: float = BEAT_S) -> None:
        self._stale_s, self._beat_s = stale_s, beat_s
        self._seen: dict[str, tuple[int, float]] = {}

    @contextmanager
    def holding(self, path: Path) -> Iterator[Callable[[], bool] | None]:
        """Claim a file for the block; give None where another worker holds it.

        Else give a function that says whether the claim is still held: a worker that stood still for
        too long has lost it. Whoever gets a claim looks first whether the file is there by now.

        Raises:
            OutputError: the folder cannot be written.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.json")
        ...     with Claims().holding(path) as first, Claims().holding(path) as second:
        ...         first(), second
        ...     list(Path(folder).iterdir())
        (True, None)
        []
        """
        try:
            mine = self._claim(_claim_of(path))
        except OSError as error:
            raise output_error(path, error) from error
        if mine is None:
            yield None
            return
        over = threading.Event()
        beat = threading.Thread(target=_keep, args=(mine, over, self._beat_s), daemon=True)
        beat.start()
        try:
            yield lambda: _touch(mine)
        finally:
            over.set()
            beat.join()
            _release(mine)

    def clear(self, path: Path) -> None:
        """Remove what is left of a claim on a file that is there: nobody needs to make it any more."""
        claim = _claim_of(path)
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(claim):  # noqa: PTH208  (names are wanted)
                _release(claim / name)
            claim.rmdir()

    def _claim(self, claim: Path) -> Path | None:
        mine = claim / f"{_machine()}-{os.getpid()}-{start_of(os.getpid()) or 0}-{next(_NUMBERS)}"
        try:
            claim.mkdir()
        except FileExistsError:
            return self._taken_over(claim, mine)
        # Another worker may remove a folder that is still empty, and make its own.
        try:
            os.close(os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            if os.listdir(claim) == [mine.name]:  # noqa: PTH208
                return mine
        except FileNotFoundError:
            return None
        _release(mine)
        return None

    def _taken_over(self, claim: Path, mine: Path) -> Path | None:
        try:
            holders = os.listdir(claim)  # noqa: PTH208
            if not holders:  # its maker was killed just then; the next try makes it anew
                claim.rmdir()
                return None
            stale = [name for name in holders if self._is_stale(claim / name)]
            if len(holders) > 1:  # two that gave way to each other, and were killed just then
                for name in stale:
                    (claim / name).unlink()
            elif stale:
                (claim / stale[0]).rename(mine)
                return mine if _touch(mine) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if os.access(claim, os.W_OK):  # no longer empty
                return None
            raise
        return None

    def _is_stale(self, holder: Path) -> bool:
        touched = holder.stat().st_mtime_ns
        now_s = time.monotonic()
        before, since_s = self._seen.get(str(holder), (None, now_s))
        if before != touched:
            since_s = now_s
        self._seen[str(holder)] = (touched, since_s)
        machine, process, started, _ = [*holder.name.split("-"), "", "", ""][:4]
        is_ours = machine == _machine() and (process + started).isdecimal()
        if is_ours and not is_alive(int(process), int(started)):
            return True
        return now_s - since_s >= self._stale_s


def _claim_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.claim")


def _touch(mine: Path) -> bool:
    """Show that the holder lives; return whether the claim is still its own."""
    try:
        os.utime(mine)
    except OSError:
        return False
    return True


def _keep(mine: Path, over: threading.Event, beat_s: float) -> None:
    while not over.wait(beat_s):
        _touch(mine)


def _release(mine: Path) -> None:
    # Whoever took the claim over, or found the folder empty, sees to the rest.
    with suppress(OSError):
        mine.unlink(missing_ok=True)
        mine.parent.rmdir()


@cache
def _machine() -> str:
    """Return what tells apart machines, and containers of one, whose processes do not see each other."""
    seen = [platform.node()]
    with suppress(OSError):
        seen.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"))
        seen.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  (no path)
    return f"{zlib.crc32('|'.join(seen).encode()):08x}"
