"""What the columns of a table are: found by name and unit, or named by the reader."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Mapping


class Role(NamedTuple):
    """What a column holds.

    Attributes:
        name: a key of `ROLES`.
        scale: SI units per printed unit; None where a unit must be in the cells.
        unit: as a reader writes it.
        ratio: what a ratio is, "" for values.
        per_layer: whether it is a mean over layers.
        heading: of the column.
    """

    name: str
    scale: float | None = None
    unit: str = ""
    ratio: str = ""
    per_layer: bool = False
    heading: str = ""


#: Role -> what its heading looks like; the first that matches counts.
ROLES = {
    "schedule": r"^schedule$|tokens.per.layer",
    "printed": r"^printed$",
    "quantity": r"^quantity$",
    "unit": r"^unit$",
    "ratio_of": r"^ratio of$",
    "visual_full": r"^visual full$|full.*tokens",
    "per_frame": r"tok\w*\s*(/|per)\s*(frame|image)",
    "frames": r"frames",
    "kind": r"schedule kind|^kind$",
    "note": r"^note|^remark",
    "precision": r"precision|dtype|\bbits?\b|quanti[sz]",
    "hardware": r"hardware|device|\bgpu\b(?!.*mem)",
    "kv_cache": r"\bkv\b|^cache",
    "activation": r"activation",
    "mean": r"(avg|average|mean|equiv).*token|token.*(avg|average|mean)",
    "prune": r"(^|\s)r$|prun\w* (ratio|rate)|token.*reduc|drop (ratio|rate)",
    "keep": r"keep|retain|retention|kept",
    "flops": r"flop|\bt?macs?\b|gmac|compute|prefill flops",
    "rate": r"throughput|tok\w*/s|im\w*/s|samples?/s|\bfps\b|\bqps\b|\btps\b",
    "time": r"latency|time|ttft|tpot|prefill",
    "memory": r"\bmem|memory|vram",
    "tokens": r"\btok(en|\b)|^#?v$|budget",
    "layer": r"layer|(^|\s)k$",
    "model": r"\bmodel(?! ?size)|\bllm\b|backbone|^base$",
    "ratio": r"^ratio|^rel|^\(?%\)?$",
    "method": r"method|name|approach|setting|variant|config",
}
#: Quantities whose numbers are cells, with what a unit is worth.
UNITS: dict[str, dict[str, float]] = {
    "flops": {"t": 1e12, "tb": 1e12, "g": 1e9, "gb": 1e9, "b": 1e9, "m": 1e6, "p": 1e15},
    "kv_cache": {"mb": 1e6, "gb": 1e9, "kb": 1e3, "mib": 2.0**20, "gib": 2.0**30, "m": 1e6, "g": 1e9},
    "time": {"ms": 1e-3, "s": 1.0, "us": 1e-6, "sec": 1.0, "second": 1.0, "seconds": 1.0},
    "rate": {},
}  # fmt: skip
UNITS["memory"] = UNITS["activation"] = UNITS["kv_cache"]
_WRITTEN = {"mib": "MiB", "gib": "GiB", "tb": "T", "gb": "GB", "b": "G"} | {
    u: u for u in UNITS["time"]
}
_RATIO = re.compile(r"%|ratio|rel\b|relative|speed-?up|\(x\)|share|reduc|saving", re.IGNORECASE)


def role_of(heading: str, named: Mapping[str, str] | None = None) -> Role | None:
    """Return what a column holds, by its heading or as it was named; None for anything else.

    Raises:
        InvalidInputError: a role that is none.

    >>> role_of("FLOPs (TB)")
    Role(name='flops', scale=1000000000000.0, unit='T', ratio='', per_layer=False, heading='FLOPs (TB)')
    >>> role_of("KV Cache (MB)").scale, role_of("FLOPs Ratio (%)").ratio, role_of("Score")
    (1000000.0, 'share', None)
    """
    told = next((v for k, v in (named or {}).items() if k.lower() == heading.lower()), None)
    lowered = heading.lower().replace("_", " ")
    if told is not None:
        name, _, unit = told.strip().partition(" ")
        if name in ("-", "none"):
            return None
        if name not in ROLES:
            raise InvalidInputError(
                f"column {shown(heading)} cannot be {shown(name)}; there is: {', '.join(ROLES)}"
            )
        lowered = f"{name} ({unit})" if unit else name
    else:
        name = next((role for role, pattern in ROLES.items() if re.search(pattern, lowered)), "")
    if not name or (name in ("tokens", "mean") and re.search(r"text|output|generat", lowered)):
        return None
    if name not in UNITS and name != "ratio":
        return Role(name, heading=heading)
    layer = bool(re.search(r"per[ -]layer|/ ?layer", lowered))
    found = None if name == "ratio" else unit_of(name, lowered)
    if found is None and (name == "ratio" or _RATIO.search(lowered)):
        name = "flops" if name == "ratio" else name
        unit, scale = ("%", 0.01) if "%" in lowered else ("", None)
        return Role(name, scale, unit, ratio_of(lowered), heading=heading)
    unit, scale = found or ("", None)
    return Role(name, scale, unit, "", layer, heading)


def ratio_of(words: str) -> str:
    """Return what a ratio is by the words around it: `share`, `saved` or `times`."""
    if re.search(r"speed-?up|\(x\)|times", words):
        return "times"
    return "saved" if re.search(r"reduc|sav|\u2193|drop", words) else "share"


def unit_of(role: str, words: str) -> tuple[str, float] | None:
    """Return (unit, SI units of one) named in a text, None where there is none.

    >>> unit_of("flops", "tflops"), unit_of("flops", "99.3 g"), unit_of("time", "latency [ms]")
    (('T', 1000000000000.0), ('G', 1000000000.0), ('ms', 0.001))
    """
    lowered = words.lower()
    if role == "rate":
        if _RATIO.search(lowered) and "/" not in lowered:
            return None
        return ("tokens/s" if re.search(r"tok\w*/s|\btps\b", lowered) else "samples/s"), 1.0
    known = UNITS[role]
    if role == "flops":
        power = re.search(r"10\s*\^?\s*(9|12)\b", lowered)
        if power:
            return {"9": ("G", 1e9), "12": ("T", 1e12)}[power[1]]
        spelled = re.search(r"(?<![a-z])([tgmp])(?:era|iga)?[ -]?(?:flop|mac|op)", lowered)
        if spelled:
            return spelled[1].upper(), known[spelled[1]]
    names = "|".join(sorted(known, key=len, reverse=True))
    found = re.search(rf"(?:[(\[/\s\d,]|^)({names})(?:/layer)?(?:[)\],/]|$|\b)", lowered)
    if found is None:
        return None
    return _WRITTEN.get(found[1], found[1].upper()), known[found[1]]
