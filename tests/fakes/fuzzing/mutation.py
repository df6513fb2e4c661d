"""Valid inputs, spoilt at random: values, JSON documents, bytes."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from random import Random

HUGE = 10**4999 * 7


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


class LongRepr:
    def __repr__(self):
        return "x" * 100_000


#: Texts that terminals, markup, shells, paths and parsers may trip over.
TEXTS = (
    "", " ", "\x00", "\x1b[2J\x1b]0;owned\x07", "[red]x[/red]", "[/x]", "a\nb", "\u202eabc", "名", "x" * 5000,
    "\udcff", "../../etc/passwd", "/dev/zero", "~nosuchuser", "a/b", "llava-1.5-7b@", "llava-1.5-7b@layers=0",
    "llava-1.5-7b@layers=4,width=1/3", "none", "None", "nan", "inf", "-1", "1e400", "=1+1", "%s%n", "{0}",
    "9" * 5000, "<script>alert(1)</script>",
)  # fmt: skip
NUMBERS = (
    -1, 0, 1, 2, 10**9, 10**400, HUGE, -HUGE, 2**63, 0.0, -0.0, 0.5, 1.5, 1e308, 5e-324, -1e-9,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip


def hostile(random: Random) -> Any:
    """A value of any kind, for an argument of the Python interface."""
    pick = random.random()
    if pick < 0.35:
        return random.choice(NUMBERS)
    if pick < 0.6:
        return random.choice(TEXTS)
    return random.choice(
        (
            None, True, False, b"bytes", [], {}, (), [1, 2], {"a": 1}, (1,), set(), [None], ["x", 1],
            [[1]], (480, 640), object(), Unprintable(), LongRepr(), np.int64(3), np.float64("nan"),
            np.float32(0.5), np.array([1, 2]), np.array(["a"]), np.array(5), Decimal("1.5"),
            Fraction(1, 3), 1j, range(3), Ellipsis, int, len, "x" * 200_000, list(range(2000)),
        )
    )  # fmt: skip


def json_value(random: Random) -> Any:
    """A value that a JSON document can hold; `HUGE` and `NaN` included, as text writers can."""
    pick = random.random()
    if pick < 0.45:
        return random.choice(NUMBERS)
    if pick < 0.7:
        return random.choice(TEXTS)
    deep: Any = 1
    for _ in range(random.choice((3, 50))):
        deep = random.choice(([deep], {"a": deep}))
    return random.choice((None, True, False, [], {}, [1, "a", None], {"a": 1}, deep, [0] * 1000))


def _places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += _places(value, (*path, key))
    elif isinstance(document, list):
        # Lists of samples and curves are long: their first entries stand for all of them.
        for index, value in enumerate(document[:4]):
            found += _places(value, (*path, index))
    return found


def spoilt(random: Random, document: Any) -> Any:
    """A copy of a document with one to three places changed."""
    document = json.loads(json.dumps(document))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = _places(document)
        if not places:
            break
        *path, last = random.choice(places)
        home = document
        for key in path:
            home = home[key]
        action = random.random()
        if action < 0.6:
            home[last] = json_value(random)
        elif action < 0.75:
            del home[last]
        elif action < 0.85 and isinstance(home, dict):
            home[random.choice(("unknown", "kind", last + "x", "\x1b[2J", "__class__"))] = 1
        elif isinstance(home[last], (int, float)) and not isinstance(home[last], bool):
            factor = random.choice((-1, 0, 2, 1e-300, 1e300, 1000))
            try:
                home[last] = type(home[last])(home[last] * factor)
            except (OverflowError, ValueError):
                home[last] = factor
        else:
            home[last] = [home[last]]
    return document


def dumped(document: Any) -> str:
    """JSON text, integers of any length included."""
    return _long(document) if _has_huge(document) else json.dumps(document)


def _has_huge(document: Any) -> bool:
    if isinstance(document, dict):
        return any(_has_huge(value) for value in document.values())
    if isinstance(document, list):
        return any(_has_huge(value) for value in document)
    return isinstance(document, int) and abs(document) > 10**4000


def _long(document: Any) -> str:
    if isinstance(document, dict):
        items = (f"{json.dumps(key)}: {_long(value)}" for key, value in document.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(document, list):
        return "[" + ", ".join(map(_long, document)) + "]"
    if isinstance(document, int) and abs(document) > 10**4000:
        return ("-" if document < 0 else "") + "7" + "0" * 4999
    return json.dumps(document)


def spoilt_bytes(random: Random, data: bytes) -> bytes:
    """Bytes that were truncated, flipped, re-encoded or replaced."""
    action = random.randrange(10)
    at = random.randrange(len(data)) if data else 0
    if action == 0:
        return data[:at]
    if action <= 3:
        changed = bytearray(data)
        for _ in range(random.choice((1, 3, 30))):
            if changed:
                changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)
    if action == 4:
        return random.choice((b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"\x1b[2J")) + data
    if action == 5:
        text = data.decode("utf-8", errors="replace")
        return text.encode(random.choice(("utf-16", "utf-32", "cp037")), errors="replace")
    if action == 6:
        opening = random.choice((b"[", b'{"a":', b"- "))
        return opening * random.choice((100, 20_000))
    if action == 7:
        return data[:at] + random.randbytes(random.choice((1, 50, 2000))) + data[at:]
    if action == 8:
        return random.choice(
            (b"", b"\n", b"null", b"[]", b"{}", b"0", b'""', b"nan", random.randbytes(500))
        )
    return data + data
