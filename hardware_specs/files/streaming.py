"""A JSON document with one long array, read item by item: traces are larger than what they say.

The text of a trace of 200 MB is ten times as large once it is Python objects. So its members are yielded
one by one, the array's items each for itself, and the reader keeps what it needs.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import MAX_BYTES, invalid, open_file
from hardware_specs.files.strict_json import MAX_DEPTH, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike
    from typing import BinaryIO

_CHUNK = 1 << 20
#: No member and no item of an array is longer, in characters.
MAX_ITEM = 64_000_000
_SPACE = re.compile(r"[ \t\n\r]*")


def stream_members(path: str | PathLike[str], kind: str, array: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of a document's members, and (array, item) for each item of one array.

    A document that is nothing but an array is that array. The file may be gzipped; `NaN` and `Infinity`
    are accepted, which are no JSON but stand in files of other programs.

    Args:
        path: the file.
        kind: bounds its size, packed and unpacked: a key of `MAX_BYTES`.
        array: the member whose items are yielded one by one.

    Raises:
        InvalidFileError: it cannot be opened, is too large, ends early, or is no such JSON.
    """
    try:
        with open_file(path, kind) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            text = _Text(gzip.GzipFile(fileobj=file) if packed else file, kind)
            if text.peek() == "[":
                yield from ((array, item) for item in text.items())
            else:
                yield from text.members(array)
            if text.peek():
                raise InvalidFileError("more text after the document's end")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, InvalidFileError) as error:
        raise error if str(path) in str(error) else invalid(path, error) from None


class _Text:
    """The text of a file from where it was read to, filled up as it is used."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, kind: str) -> None:
        self._file = file
        self._kind = kind
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder(parse_int=whole_number)
        self._text = ""
        self._at = 0
        self._read = 0
        self._ended = False

    def _fill(self, least: int = _CHUNK) -> bool:
        """Read on; False where the file has ended."""
        if self._ended:
            return False
        content = self._file.read(max(least, _CHUNK))
        self._read += len(content)
        if self._read > MAX_BYTES[self._kind]:
            raise InvalidFileError(f"larger than any {self._kind} when unpacked")
        self._ended = not content
        self._text = self._text[self._at :] + self._decoder.decode(content, final=self._ended)
        self._at = 0
        return not self._ended

    def peek(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def _take(self, expected: str) -> str:
        found = self.peek()
        if not found:
            raise InvalidFileError("it ends in the middle: the file is cut short")
        if found not in expected:
            raise InvalidFileError(f"not valid JSON: {found!r} where {expected[0]!r} should stand")
        self._at += 1
        return found

    def value(self) -> Any:
        """Return the next value as plain data."""
        self.peek()
        while True:
            held = len(self._text) - self._at
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if held > MAX_ITEM:
                    raise InvalidFileError(f"a value of more than {MAX_ITEM} characters") from None
                # Ever more at once, or a long value would be read again and again.
                if self._fill(2 * held):
                    continue
                if error.pos >= len(self._text) or "Unterminated" in error.msg:
                    raise InvalidFileError("it ends in the middle: the file is cut short") from None
                raise InvalidFileError(f"not valid JSON: {error.msg}") from None
            except RecursionError:
                raise InvalidFileError(f"more than {MAX_DEPTH} levels deep") from None
            # A number at the text's end may go on.
            if end == len(self._text) and not self._ended:
                self._fill(2 * held)
                continue
            self._at = end
            return value

    def _places(self, begin: str, end: str) -> Iterator[None]:
        """Stop where each member of an array or object begins, which the caller reads."""
        self._take(begin)
        if self.peek() == end:
            self._at += 1
            return
        while True:
            yield
            if self._take("," + end) == end:
                return

    def items(self) -> Iterator[Any]:
        """Yield the items of the array that begins here."""
        for _ in self._places("[", "]"):
            yield self.value()

    def members(self, array: str) -> Iterator[tuple[str, Any]]:
        """Yield the members of the object that begins here."""
        for _ in self._places("{", "}"):
            name = self.value()
            if not isinstance(name, str):
                raise InvalidFileError("not valid JSON: a name that is no text")
            self._take(":")
            if name == array and self.peek() == "[":
                yield from ((array, item) for item in self.items())
            else:
                yield name, self.value()
