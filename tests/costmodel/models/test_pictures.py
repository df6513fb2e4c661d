"""The size of pictures from their headers."""

from __future__ import annotations

import logging
import os
import struct
from typing import TYPE_CHECKING

import pytest

from costmodel.models.pictures import picture_files, picture_size
from hardware_specs.errors import InvalidFileError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

Image = pytest.importorskip("PIL.Image")


def _write(path: Path, width: int, height: int, orientation: int | None = None) -> Path:
    picture = Image.new("RGB", (width, height))
    if orientation is None:
        picture.save(path)
    else:
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.tiff", "A.JPEG"])
def test_height_and_width(tmp_path: Path, name: str) -> None:
    assert picture_size(_write(tmp_path / name, 64, 48)) == (48, 64)


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (48, 64)), (3, (48, 64)), (6, (64, 48)), (8, (64, 48))]
)
def test_a_photo_on_its_side(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    assert picture_size(_write(tmp_path / "a.jpg", 64, 48, orientation)) == size


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        _write(tmp_path / name, 8, 8)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in picture_files([tmp_path])] == ["a.jpg", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no picture in it"):
        picture_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"not a picture", bytes(range(256)) * 8]
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InvalidFileError, match=r"a\.png"):
        picture_size(path)


def test_pipes_and_missing_files_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "missing.png"):
        with pytest.raises(InvalidFileError, match=r"not a regular file|no such file"):
            picture_size(tmp_path / name)


def test_a_damaged_picture_is_told_of_once(tmp_path: Path, capfd, monkeypatch) -> None:
    """A tag that claims 133 samples per pixel: Pillow logs it, and an unheard log goes to stderr."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    path = tmp_path / "many.tiff"
    Image.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", 277, 3, 1))
    content[place + 8] = 133
    path.write_bytes(content)
    with pytest.raises(InvalidFileError, match="no picture"):
        picture_size(path)
    assert capfd.readouterr().err == ""


def test_a_picture_of_two_thousand_million_pixels_is_not_decoded(tmp_path: Path) -> None:
    """Its header is read, or refused by Pillow's own bound: never a traceback, never the memory."""
    path = tmp_path / "huge.bmp"
    _write(path, 4, 4)
    data = bytearray(path.read_bytes())
    data[18:26] = (50_000).to_bytes(4, "little") + (40_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InvalidFileError, match=r"huge\.bmp"):
        picture_size(path)
