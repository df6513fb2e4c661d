"""Numbers as people read them: SI inside the program, scaled units where text is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.quantities import Num

_THOUSANDS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def show(value: Any, unit: str = "") -> Any:
    """Return a value as a table shows it: `-` for what is not known, yes and no, text as it is.

    Args:
        value: a number in SI units, None, or something that is formatted already.
        unit: a key of `FORMATS`.

    >>> show(8583722926080, "FLOP"), show(0.0275, "s"), show(None, "B"), show(0.5, "%"), show(True)
    ('8.584 T', '27.500 ms', '-', '50.0 %', 'yes')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return FORMATS[unit](value) if isinstance(value, (int, float)) else value


def show_flops(value: Num | None) -> str:
    """Format FLOPs.

    >>> show_flops(8583722926080), show_flops(262668288)
    ('8.584 T', '262.668 M')
    """
    return "-" if value is None else _scaled(value)


def show_bytes(value: Num | None) -> str:
    """Format bytes, in decimal units.

    >>> show_bytes(14126854144), show_bytes(512), show_bytes(None)
    ('14.127 GB', '512 B', '-')
    """
    if value is None:
        return "-"
    text = _scaled(value)
    return text + "B" if text[-1].isalpha() else text + " B"


def show_time(value: Num | None) -> str:
    """Format seconds.

    >>> show_time(0.0275), show_time(3.2e-6), show_time(4.2e-11)
    ('27.500 ms', '3.200 us', '0.04 ns')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(float(value))
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if size >= factor:
            return f"{value / factor:.3f} {unit}"
    return f"{value * 1e9:.1f} ns" if size >= 5e-11 else f"{value * 1e9:.1g} ns"


def show_share(value: float | None) -> str:
    """Format a share of one in percent.

    >>> show_share(0.2345)
    '23.4 %'
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def show_count(value: float) -> str:
    """Format a number without a unit: whole ones with their thousands apart.

    >>> show_count(7063427072), show_count(0.00125)
    ('7,063,427,072', '0.00125')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def show_scaled(value: float | None, scale: float, unit: str) -> str:
    """Format a quantity in a unit of one's choice, five digits; nothing where it is not known.

    >>> show_scaled(1410e6, 1e6, "MHz"), show_scaled(None, 1e6, "MHz")
    ('1410 MHz', '')
    """
    return "" if value is None else f"{value / scale:.5g} {unit}".strip()


def _scaled(value: Any) -> str:
    for factor, unit in _THOUSANDS:
        if abs(value) >= factor:
            return f"{value / factor:.3f} {unit}"
    return f"{value:.0f}"


#: Unit of a column -> how its numbers are written. Without a unit a value is text.
FORMATS: dict[str, Callable[[Any], str]] = {
    "": str,
    "1": show_count,
    "FLOP": show_flops,
    "B": show_bytes,
    "s": show_time,
    "%": show_share,
}


def show_visual_tokens(inputs: Mapping[str, Any]) -> str:
    """Say how many visual tokens a request has, and of which image where its size was given.

    >>> show_visual_tokens({"visual_tokens": 2040, "image_size": [1080, 1920]})
    '2040 visual tokens (1080x1920)'
    """
    from costmodel.models.model import write_size

    size = inputs.get("image_size")
    text = f"{inputs['visual_tokens']} visual tokens"
    return f"{text} ({write_size(size)})" if size else text
