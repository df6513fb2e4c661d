"""Every command that writes: killed, out of disk, nowhere to write, raced by another writer."""

from __future__ import annotations

import os
import signal
import time

import pytest
from fuzzing.outputs import WRITERS, child, killed_often, prepared, read_whole, visible, waited


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("inputs"))


def _words(name, inputs):
    file_name, make = WRITERS[name]
    return file_name, lambda place: make(inputs, place)


def _writing(argv, folder):
    """A command that has begun to write into a folder."""
    pid = child(argv)
    until = time.monotonic() + 20
    while not any(path.name.startswith(".") for path in folder.iterdir()):
        assert time.monotonic() < until, "it never began to write"
        time.sleep(0.005)
    return pid


def _refused(text):
    lines = [line for line in text.splitlines() if not line.startswith("warning: ")]
    return len(lines) == 1 and lines[0].startswith("error: ")


@pytest.mark.parametrize("name", ["sweep-csv", "sweep-parquet", "calibrate"])
def test_kill_at_any_moment(name, inputs):
    file_name, words = _words(name, inputs)
    counts = killed_often(words, file_name, kills=8, seed=0)
    assert counts["killed"] == 8


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(name, inputs, tmp_path):
    file_name, words = _words(name, inputs)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / file_name).write_bytes(b"the old one")
    said = tmp_path / "said"
    assert waited(child(words(folder / file_name), most_bytes=700, say=said)) == 2, said.read_text()
    assert _refused(said.read_text()), said.read_text()
    assert visible(folder) == {file_name: b"the old one"}
    assert len(list(folder.iterdir())) == 1, "a partial file is left behind"


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("where", ["read-only", "below a file", "a folder"])
def test_nowhere_to_write(name, where, inputs, tmp_path):
    file_name, words = _words(name, inputs)
    (tmp_path / "file").touch()
    (tmp_path / file_name).mkdir()
    place = {
        "read-only": "/proc/self/net", "below a file": tmp_path / "file", "a folder": tmp_path
    }[where]  # fmt: skip
    said = tmp_path / "said"
    code = waited(child(words(type(tmp_path)(place) / file_name), say=said))
    assert code == 2, said.read_text()
    assert _refused(said.read_text()), said.read_text()


def test_two_sweeps_at_once_leave_one_whole_file(inputs, tmp_path):
    file_name, words = _words("sweep-csv", inputs)
    pids = [child(words(tmp_path / file_name)) for _ in range(2)]
    assert [waited(pid) for pid in pids] == [0, 0]
    assert read_whole(tmp_path / file_name) == 576 * 64
    assert list(visible(tmp_path)) == [file_name]


def test_a_campaign_leaves_the_partial_files_of_others(inputs, tmp_path, tiny_source):
    file_name, words = _words("sweep-csv", inputs)
    sweep = _writing(words(tmp_path / file_name), tmp_path)
    os.kill(sweep, signal.SIGSTOP)
    campaign = child(
        ["profile", tiny_source, "--out", str(tmp_path), "--device", "cpu", "--dtype", "fp32",
         "--rounds", "1", "--max-time", "0.05", "--visual-tokens", "4"]
    )  # fmt: skip
    assert waited(campaign) == 0
    os.kill(sweep, signal.SIGCONT)
    assert waited(sweep) == 0
    assert read_whole(tmp_path / file_name) == 576 * 64


def test_a_killed_sweep_leaves_nothing_for_long(inputs, tmp_path):
    file_name, words = _words("sweep-csv", inputs)
    pid = _writing(words(tmp_path / file_name), tmp_path)
    os.kill(pid, signal.SIGKILL)
    waited(pid)
    assert waited(child(words(tmp_path / file_name))) == 0
    assert [path.name for path in tmp_path.iterdir()] == [file_name]
