"""The one writer: a file is whole or not there, the old one stays, and nothing is left lying about."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from hardware_specs.errors import InvalidInputError, OutputError
from hardware_specs.files import writing
from hardware_specs.files.writing import appending, prepare_folder, replacing, write_file


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"),
     (errno.EDQUOT, "quota"), (errno.EIO, "another place")],
)  # fmt: skip
@pytest.mark.parametrize("where", ["os.open", "os.fsync", "Path.replace"])
def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str, where: str
) -> None:
    path = write_file(tmp_path / "a.txt", "old")

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    home, _, name = where.partition(".")
    with monkeypatch.context() as patch:
        patch.setattr(writing.os if home == "os" else Path, name, fail)
        with pytest.raises(OutputError, match=advice):
            write_file(path, "new")
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, InvalidInputError, SystemExit])
def test_whatever_ends_the_block_is_passed_on(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_file(tmp_path / "a.txt", "old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_read_only_folder_tells_its_own_error_not_that_of_cleaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OutputError, match="read-only"):
            write_file(tmp_path / "a.txt", "new")


def test_a_file_larger_than_the_system_allows(tmp_path: Path) -> None:
    """The kernel's own refusal in the middle of a write, as a full disk gives it."""
    path = write_file(tmp_path / "a.bin", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.bin"):
            write_file(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a.bin"]


def test_a_new_file_has_the_rights_of_the_umask_and_an_old_one_keeps_its_own(
    tmp_path: Path,
) -> None:
    before = os.umask(0o027)
    try:
        path = write_file(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    assert stat.S_IMODE(write_file(path, "y").stat().st_mode) == 0o604


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_file_and_folder_are_left_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", "old")
    path.chmod(0o444)
    with pytest.raises(OutputError, match="read-only"):
        write_file(path, "new")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="permission"):
            write_file(tmp_path / "b.txt", "new")
    finally:
        tmp_path.chmod(0o755)
    assert path.read_text() == "old"


def test_a_link_keeps_pointing_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target = write_file(tmp_path / "far" / "target.txt", "old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    write_file(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    dangling = tmp_path / "dangling.txt"
    dangling.symlink_to(tmp_path / "far" / "other.txt")
    write_file(dangling, "made")
    assert (tmp_path / "far" / "other.txt").read_text() == "made"
    assert dangling.is_symlink()


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "circle", "nowhere", "under a file"])
def test_places_where_no_file_can_be(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.txt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "nowhere":
        path = tmp_path / "no" / "a.txt"
    else:
        path.touch()
        path = path / "b.txt"
    names = _names(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        write_file(path, "x")
    assert _names(tmp_path) == names
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udc80"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    if name == "\udc80":  # a byte that is no UTF-8 is a name all the same
        assert write_file(tmp_path / name, "x").read_text() == "x"
        return
    with pytest.raises(OutputError):
        write_file(tmp_path / name, "x")


def test_the_longest_name_has_room_for_a_temporary_one(tmp_path: Path) -> None:
    assert write_file(tmp_path / ("x" * 255), "x").read_text() == "x"


#: Writes half a file, says so, and waits to be killed.
# A shell starts its background jobs deaf to SIGINT, and the child inherits that.
_STOPPED = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from hardware_specs.files.writing import replacing
    with replacing(sys.argv[1]) as file:
        file.write(b"half")
        file.flush()
        print("ready", flush=True)
        time.sleep(60)
"""


def _stopped_writer(path: Path) -> subprocess.Popen[bytes]:
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_STOPPED), str(path)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    return writer


def test_a_killed_writer_loses_nothing_and_its_rest_goes_with_the_next_write(
    tmp_path: Path,
) -> None:
    path = write_file(tmp_path / "a.txt", "old")
    writer = _stopped_writer(path)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert path.read_text() == "old"
    assert len(_names(tmp_path)) == 2
    write_file(tmp_path / "b.txt", "another file's writer leaves it alone")
    assert len(_names(tmp_path)) == 3
    write_file(path, "new")
    assert _names(tmp_path) == ["a.txt", "b.txt"]


def test_a_living_writer_keeps_its_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    writer = _stopped_writer(path)
    try:
        write_file(path, "new")
        partial = [name for name in _names(tmp_path) if name != "a.txt"]
        assert len(partial) == 1
        prepare_folder(tmp_path)
        assert (tmp_path / partial[0]).read_bytes() == b"half"
    finally:
        writer.kill()
        writer.communicate()


def test_an_interrupted_writer_cleans_up(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.txt", "old")
    writer = _stopped_writer(path)
    writer.send_signal(signal.SIGINT)
    writer.communicate()
    assert _names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_a_rest_of_a_process_number_used_again_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    host, process, started = writing._owner().split("-")
    rest = path.with_name(f"{writing._prefix(path)}{host}-{process}-{int(started) + 1}.0.partial")
    rest.touch()
    foreign = path.with_name(f"{writing._prefix(path)}00000000-{process}-1.0.partial")
    foreign.touch()
    write_file(path, "x")
    assert not rest.exists()
    assert foreign.exists()


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    contents = [bytes([65 + number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(path, text)) for text in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert _names(tmp_path) == ["a.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"give another folder|give a folder"):
        prepare_folder(tmp_path / "file" / "folder")
    with pytest.raises(OutputError):
        prepare_folder(tmp_path / "file")
    assert prepare_folder(tmp_path / "new" / "folder").is_dir()
    assert _names(tmp_path) == ["file", "new"]


def test_an_error_beside_appending_stays_what_it_is(tmp_path: Path) -> None:
    """Only a failed write is an output error; the lines before it are there."""

    def work() -> None:
        with appending(tmp_path / "a.jsonl") as append:
            append("1")
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        work()
    assert (tmp_path / "a.jsonl").read_text() == "1\n"
    with pytest.raises(OutputError, match="it is a folder"), appending(tmp_path):
        pass
