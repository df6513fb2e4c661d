"""The one reader against everything a path may lead to: an error in time, never a hang or a crash."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import pytest

from costmodel.calibration import Calibration
from costmodel.calibration.tables import kind_of, read_tables
from costmodel.models import load_model
from hardware_specs import load_hardware
from hardware_specs.errors import CalibrationError, InvalidFileError, VlmRooflineError
from hardware_specs.files.reading import (
    MAX_BYTES,
    MAX_PIXELS,
    DamagedFileWarning,
    files_under,
    read_bytes,
    read_json,
    read_lines,
    read_picture,
    read_text,
    read_yaml,
    show_path,
    user_path,
)
from hardware_specs.files.strict_json import MAX_DEPTH, MAX_DIGITS, parse_json
from profiling.microbench.table import read_op_table
from profiling.records.storage import read_measurement, read_measurements
from profiling.tracing.kernels import read_trace
from profiling.tracing.op_profile import iterate_op_profiles, read_op_profile
from token_reduction.crossget import load_cross_tokens

#: Every door through which a user's file comes in: ending and reader.
DOORS = {
    "device": (".yaml", load_hardware),
    "model": (".json", lambda path: load_model(str(path))),
    "calibration": (".json", Calibration.load),
    "table in JSON": (".json", read_tables),
    "table in CSV": (".csv", lambda path: [kind_of(*table) for table in read_tables(path)]),
    "table in Parquet": (".parquet", read_tables),
    "table of ops": (".json", read_op_table),
    "record": (".json", read_measurement),
    "op profile": (".json", read_op_profile),
    "trace": (".json", read_trace),
    "packed trace": (".json.gz", read_trace),
    "picture": (".png", read_picture),
    "learned tokens": (".safetensors", lambda path: load_cross_tokens(path, (2, 2))),
}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _circle(path: Path) -> None:
    path.symlink_to(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5_000_000_000)


def _unreadable_link(path: Path) -> None:
    path.symlink_to(path.with_name("nothing is here"))


ENEMIES = {
    "a pipe": _fifo,
    "an endless device": _endless,
    "a folder": Path.mkdir,
    "links in a circle": _circle,
    "a link to nothing": _unreadable_link,
    "a sparse file of 5 GB": _sparse,
    "no bytes": Path.touch,
    "NUL bytes": lambda path: path.write_bytes(bytes(5000)),
    "UTF-16": lambda path: path.write_bytes('{"a": 1}'.encode("utf-16")),
    "no text": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "deep brackets": lambda path: path.write_bytes(b"[" * 200_000),
    "deep objects": lambda path: path.write_bytes(b'{"a":' * 200_000),
    "many digits": lambda path: path.write_bytes(b'{"a": ' + b"9" * 5000 + b"}"),
}


@pytest.mark.parametrize("enemy", ENEMIES)
@pytest.mark.parametrize("door", DOORS)
def test_every_reader_refuses_every_enemy(tmp_path: Path, door: str, enemy: str) -> None:
    ending, read = DOORS[door]
    path = tmp_path / f"enemy{ending}"
    ENEMIES[enemy](path)
    with pytest.raises(VlmRooflineError) as caught:
        read(path)
    message = str(caught.value)
    assert "enemy" in message or enemy in ("a folder", "no text", "NUL bytes")
    assert len(message) < 1000


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udc80", "~nobody-has-this-name/x"])
@pytest.mark.parametrize("door", DOORS)
def test_names_that_no_file_can_have(door: str, name: str) -> None:
    ending, read = DOORS[door]
    with pytest.raises(VlmRooflineError):
        read(Path(name + ending))


def test_a_file_of_the_kernel_that_claims_to_be_empty_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MAX_BYTES, "record", 10)
    with pytest.raises(InvalidFileError, match="larger than"):
        read_bytes("/proc/self/status", "record")


def test_the_size_bound_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAX_BYTES, "record", 10)
    path = tmp_path / "x.json"
    path.write_bytes(b"1234567890")
    assert read_bytes(path, "record") == b"1234567890"
    path.write_bytes(b"12345678901")
    with pytest.raises(InvalidFileError, match="larger than"):
        read_bytes(path, "record")


def test_a_byte_order_mark_of_utf_8_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path, "record") == {}
    assert read_text(path, "record") == "{}"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(path) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "appears twice"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "levels deep"),
        ("[" * 500 + "]" * 500, "levels deep"),
        ("9" * (MAX_DIGITS + 1), "digits"),
        ("1e999", "out of range"),
        ("NaN", "not a number"),
        ("[1,", "line 1, column 4"),
        ("", "not valid JSON"),
    ],
)
def test_json_within_bounds(text: str, reason: str) -> None:
    with pytest.raises(InvalidFileError, match=reason):
        parse_json(text)


def test_json_at_its_bounds() -> None:
    deep = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert parse_json(deep)
    assert parse_json("9" * MAX_DIGITS) == int("9" * MAX_DIGITS)
    assert parse_json("[NaN, Infinity]", infinite=True)[1] == float("inf")
    assert parse_json('{"a": 1, "a": 2}', repeated=True) == {"a": 2}


@pytest.mark.parametrize("digits", [200, 5000])
def test_yaml_numbers_are_bounded(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("tdp_w: " + "9" * digits)
    with pytest.raises(InvalidFileError, match=r"line 1, column 8: .*digits"):
        read_yaml(path)


def test_lines_end_at_a_line_feed_only_and_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('"a\u2028b"\n\n"c"', encoding="utf-8")
    assert [text.strip() for _, text in read_lines(path)] == ['"a\u2028b"', '"c"']
    assert [place for place, _ in read_lines(path)] == [f"{path}, line 1", f"{path}, line 3"]
    monkeypatch.setitem(MAX_BYTES, "record", 4)
    with pytest.raises(InvalidFileError, match="line 1: larger than"):
        list(read_lines(path))


@pytest.mark.parametrize("enemy", ENEMIES)
def test_a_folder_with_one_enemy_names_it_and_reads_the_rest(tmp_path: Path, enemy: str) -> None:
    if enemy == "a folder":
        pytest.skip("a folder of that name is searched like any other")
    ENEMIES[enemy](tmp_path / "enemy.json")
    ENEMIES[enemy](tmp_path / "enemy_ops.json")
    with pytest.warns(DamagedFileWarning) as caught:
        assert read_measurements(tmp_path) == []
    assert sum("enemy.json" in str(item.message) for item in caught) == 1
    with pytest.warns(DamagedFileWarning, match="enemy_ops"):
        assert list(iterate_op_profiles(tmp_path)) == []


def test_folders_called_like_files_are_searched(tmp_path: Path) -> None:
    (tmp_path / "x_ops.json").mkdir()
    (tmp_path / "x_ops.json" / "a.json").touch()
    (tmp_path / ".hidden.json").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert files_under(tmp_path, (".json",)) == [tmp_path / "x_ops.json" / "a.json"]


def test_a_table_of_equal_rows_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"time_s": [1.0] * 1000}), tmp_path / "x.parquet")
    monkeypatch.setattr("costmodel.calibration.tables.MOST_CELLS", 999)
    with pytest.raises(CalibrationError, match="cells"):
        read_tables(tmp_path / "x.parquet")


def test_a_trace_is_bounded_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(b" " * 10_000))
    monkeypatch.setitem(MAX_BYTES, "trace", 5000)
    with pytest.raises(InvalidFileError, match="when unpacked"):
        read_trace(path)


def _png(width: int, height: int) -> bytes:
    """Return a picture whose header promises so many pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [8001, 9600, 14_000, 100_000])
def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path, side: int) -> None:
    pytest.importorskip("PIL")
    assert side**2 > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(side, side))
    with pytest.raises(InvalidFileError, match=r"bomb\.png.*(million|decompression bomb)"):
        read_picture(path)


def test_a_picture_cut_off_is_refused_and_a_whole_one_is_read(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    whole = io.BytesIO()
    images.new("L", (40, 30), 200).save(whole, "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(whole.getvalue())
    picture = read_picture(path)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    path.write_bytes(whole.getvalue()[:60])
    with pytest.raises(InvalidFileError, match=r"x\.png"):
        read_picture(path)


def test_paths_in_messages_are_short_and_harmless() -> None:
    assert show_path("a\x1b]0;b") == r"a\x1b]0;b"
    assert len(show_path("x" * 5000)) == 240
    with pytest.raises(InvalidFileError, match="no such user"):
        user_path("~nobody-has-this-name/x")
