"""From a grid of texts to cells: what every row says of its model, its tokens and its numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.audits.columns import UNITS, Role, ratio_of, role_of, unit_of
from costmodel.audits.shapes import full_tokens, is_model, plain_model, shape_of
from costmodel.audits.table import Cell, Kind, PublishedTable, Schedule, parse_schedule
from costmodel.methods import list_methods
from costmodel.methods.registry import method_info
from hardware_specs.errors import InvalidFileError, InvalidInputError, UnknownNameError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from costmodel.audits.reading import Grid

#: Numbers that are looked at together; no printed table has more.
MOST_CELLS, MOST_DIGITS = 300, 1e16
_COUNT = r"\d[\d,]{0,15}(?:\.\d{1,6})?"
#: A number as printed, with what stands before it, its power of ten and its unit.
_NUMBER = re.compile(
    rf"([~<>\u2248\u2264\u2193\u2191\u2212(+-]*)\s*({_COUNT}|\.\d{{1,6}})"
    r"(?:\s*(?:e\+?|[x\u00d7*\u00b7]\s*10\s*\^?\s*)(\d{1,2}))?\s*"
    r"([^\d\s,;|/()\u2191\u2193]*)(\s*[\u2191\u2193](?!\s*[\d.]))?"
)
#: Behind a number: how far it scatters, which is no number of its own.
_SPREAD = re.compile(rf"(?:\u00b1|\+/-)\s*(?:{_COUNT}|\.\d{{1,6}})")
#: What may be a model's name in a caption.
_WORD = re.compile(r"[A-Za-z][\w.+-]*\w(?: \d{1,3}(?:\.\d)?[Bb]\b)?")
_SHARE = r"(\d{1,3}(?:\.\d{1,9})?|\.\d{1,9})\s*(%?)"
_BASELINE = re.compile(
    r"vanilla|baseline|upper ?bound|dense|original?\b|\bfull\b|unpruned|no pruning", re.IGNORECASE
)
#: Weights of 4 bits alone, weights and operands of 8.
_PRECISIONS = {"4": "w4a16", "8": "w8a8"}
#: A part of the model that a heading names; FLOPs of a prefill are of the language model's.
_PARTS = {
    "decode": r"tpot|per.token|/ ?tok|decod(e|ing)\b",
    "prefill": r"prefill(?!.*flop)|ttft|first.token",
    "projector": r"projector",
    "vision": r"vision|vit\b|encoder|tower",
    "llm": r"\bllm\b|language|decoder",
}


def table_of(
    grid: Grid,
    name: str,
    *,
    model: str | None = None,
    columns: Mapping[str, str] | None = None,
    text_tokens: int | None = None,
) -> PublishedTable:
    """Return the cells of a grid.

    Raises:
        InvalidInputError: a column that is not there.
        InvalidFileError: no column of numbers is known, or no model is named.
        UnknownModelError: a model that is not shipped.
    """
    grid = _by_model(_upright(grid, columns))
    headings = ", ".join(shown(heading) for heading in grid.heading if heading)
    known = [heading.lower() for heading in grid.heading]
    for heading in columns or {}:
        if heading.lower() not in known:
            raise InvalidInputError(f"{name} has no column {shown(heading)}; there is: {headings}")
    stated = re.search(r"\d{1,6}", grid.about.get("stated_text", ""))
    if text_tokens is None and stated:
        text_tokens = int(stated[0])
    said = {
        plain_model(word) for word in _WORD.findall(grid.about.get("says", "")) if is_model(word)
    }
    model = model or grid.about.get("model") or (said.pop() if len(said) == 1 else None)
    reader = _Rows(grid, name, model, columns)
    cells = reader.long() if reader.has("printed") else reader.wide()
    if not cells:
        if reader.unknown is not None:
            raise reader.unknown
        why = "; ".join(reader.remarks) or "name one, such as --column 'Cost=flops T'"
        raise InvalidFileError(
            f"{name}: no number of FLOPs, ratio, KV cache, memory, latency or throughput under "
            f"{headings[:300]}; {why}"
        )
    if len(cells) > MOST_CELLS:
        raise InvalidFileError(f"{name}: {len(cells)} numbers; at most {MOST_CELLS} are one table")
    if any(cell.value / cell.step > MOST_DIGITS for cell in cells):
        raise InvalidFileError(f"{name}: a number has more digits than anybody prints")
    return PublishedTable(name, tuple(cells), grid.about, text_tokens, tuple(reader.remarks))


def _upright(grid: Grid, columns: Mapping[str, str] | None) -> Grid:
    """Return a grid whose quantities are columns: one that has them as rows is turned."""

    def any_quantity(texts: Iterable[str]) -> bool:
        roles = [role_of(text, columns) for text in texts]
        return any(role is not None and role.name in (*UNITS, "printed") for role in roles)

    if any_quantity(grid.heading) or not any_quantity(row[0] for row in grid.rows):
        return grid
    heading, *rows = zip(grid.heading, *grid.rows, strict=True)
    return replace(grid, heading=heading, rows=tuple(rows))


def _by_model(grid: Grid) -> Grid:
    """Return a grid with a row for each model, where a table has columns for each."""
    led = [_led_by_model(heading) for heading in grid.heading]
    models = dict.fromkeys(model for model, _ in led if model)
    if not models:
        return grid
    shared = [place for place, (model, _) in enumerate(led) if not model]
    names = list(dict.fromkeys(name for model, name in led if model))
    rows = []
    for row in grid.rows:
        if len({cell for cell in row if cell}) == 1:
            rows.append(tuple(max(row) for _ in [*shared, *names, ""]))
            continue
        for model in models:
            cells = {
                name: cell for (each, name), cell in zip(led, row, strict=True) if each == model
            }
            rows.append((*(row[i] for i in shared), model, *(cells.get(n, "") for n in names)))
    heading = (*(grid.heading[place] for place in shared), "Model", *names)
    return replace(grid, heading=heading, rows=tuple(rows))


def _led_by_model(heading: str) -> tuple[str, str]:
    """Return the model that a heading begins with and the heading behind it; "" where it begins with none.

    >>> _led_by_model("LLaVA-1.5-7B TFLOPs"), _led_by_model("FLOPs (T)")
    (('LLaVA-1.5-7B', 'TFLOPs'), ('', 'FLOPs (T)'))
    """
    words = heading.split()
    for number in range(1, min(len(words), 6)):
        model, rest = " ".join(words[:number]), " ".join(words[number:])
        if is_model(model) and role_of(rest) is not None:
            return model, rest
    return "", heading


class _Rows:
    """The rows of one table, and what was taken for granted in reading them."""

    def __init__(
        self, grid: Grid, name: str, model: str | None, columns: Mapping[str, str] | None
    ) -> None:
        self.grid, self.name, self.model = grid, name, model
        self.roles = [role_of(heading, columns) for heading in grid.heading]
        if not self.has("method"):
            self.roles[0] = self.roles[0] or Role("method", heading=grid.heading[0])
        self._settle_ratio(columns or {})
        self.images = self._whole(grid.about.get("seq_images", ""))
        self.remarks: dict[str, None] = {}
        self.unknown: UnknownNameError | None = None
        self.above = self.named = ""
        self.full: dict[str, float] = {}
        self.row: tuple[str, ...] = ()

    def _settle_ratio(self, columns: Mapping[str, str]) -> None:
        """A bare `Ratio` in front of all quantities is of tokens: kept, or pruned where it begins with 0."""
        places = [i for i, role in enumerate(self.roles) if role is not None and role.name in UNITS]
        heading = self.grid.heading[places[0]] if len(places) > 1 else ""
        if heading not in columns and re.fullmatch(r"ratios?\W*", heading.lower()):
            first = re.search(_COUNT, self.grid.rows[0][places[0]])
            name = "prune" if first and float(first[0].replace(",", "")) == 0 else "keep"
            self.roles[places[0]] = Role(name, heading=heading)

    def has(self, name: str) -> bool:
        return any(role is not None and role.name == name for role in self.roles)

    def said(self, name: str) -> str:
        """What the current row says under the first heading of that role that is not empty."""
        pairs = zip(self.roles, self.row, strict=True)
        return next((text for role, text in pairs if role and role.name == name and text), "")

    def _whole(self, text: str) -> int:
        return int(text) if re.fullmatch(r"[1-9]\d{0,3}", text) else 1

    def _setting(self) -> tuple[str, float, int, str] | None:
        """The model, its full visual tokens, frames and precision of the current row; None if unknown."""
        # Rows below a cell that spans several leave it empty, and those below an unreduced model's
        # own row are of it.
        own = self.said("method")
        sized = self.model is None or re.search(r"\d\s*b\b", own, re.IGNORECASE)
        own = own if not self.has("model") and sized and is_model(own) else ""
        self.above = self.said("model") or own or self.above
        named = self.above or self.model
        if not named:
            raise InvalidFileError(
                f"{self.name}: no column names the model; give one, such as --model llava-1.5-7b"
            )
        model = plain_model(named)
        try:
            shape_of(model)
        except UnknownNameError as error:
            self.unknown = error
            self.remarks[f"rows of {shown(named)} are left out: no model of that name"] = None
            return None
        written = self.said("visual_full").replace(",", "")
        full = (
            float(written)
            if re.fullmatch(r"\d{1,7}(\.\d{1,6})?", written)
            else self.full.get(model) or full_tokens(model)
        )
        said = (self.said("precision") or self.said("method")).lower().replace(" ", "")
        width = re.search(r"int([48])|([48])-?bit|fp8|fp32|bf16|w4a16|w8a8", said)
        precision = "fp16"
        if width:
            precision = _PRECISIONS.get(width[1] or width[2], width[0])
        return model, full, self._whole(self.said("frames")), precision

    def long(self) -> list[Cell]:
        """Cells of a table with one printed number a row, its quantity and its unit."""
        cells = []
        for row in self.grid.rows:
            self.row = row
            quantity, unit = self.said("quantity"), self.said("unit")
            role = role_of(f"{quantity} ({unit})" if unit else quantity)
            match = _NUMBER.search(self.said("printed"))
            if role is None or role.name not in UNITS or match is None:
                self.remarks[f"{quantity or 'a row'} is no quantity that is looked at"] = None
                continue
            setting = self._setting()
            if setting is None:
                continue
            model, full, frames, precision = setting
            written, note = self.said("schedule") or "unknown", self.said("note").lower()
            said = self.said("kind").lower()
            kind: Kind = "default" if said == "default" else "stated"
            # Of a schedule without a layer nothing can have been inferred.
            if said == "inferred" or (not said and ";" in written and "inferred" in note):
                kind = "inferred"
            schedule = parse_schedule(written, full, frames, kind)
            cells.append(
                Cell(self.said("method"), model, schedule, role.name, match[2].replace(",", ""),
                     (1.0 if role.scale is None else role.scale) * 10.0 ** int(match[3] or 0), role.ratio,
                     self.said("ratio_of") or None, unit, _part(quantity), role.per_layer,
                     precision, max(self.images, frames))
            )  # fmt: skip
        return cells

    def wide(self) -> list[Cell]:
        """Cells of a table with a column for each quantity."""
        cells: list[Cell] = []
        section = ""
        bases: dict[str, str] = {}
        seen: dict[str, int] = {}
        for row in self.grid.rows:
            self.row = row
            words = {cell for cell in row if cell}
            if len(words) == 1 and len(row) > 2:
                section = words.pop()  # such as "Retain 64 tokens"
                continue
            setting = self._setting()
            if setting is None:
                continue
            model, full, frames, precision = setting
            # A cell that spans rows leaves those below empty.
            self.named = name = (
                self.said("method") or self.said("model") or self.row[0] or self.named
            )
            schedule = self._schedule(name, model, section, full, frames, based=model in bases)
            label = self._label(name, section, seen)
            if schedule is not None and schedule.uniform == schedule.full:
                bases.setdefault(f"{model} {precision}", label)
                bases.setdefault(model, label)
            base = bases.get(f"{model} {precision}") or bases.get(model)
            for role, text in zip(self.roles, self.row, strict=True):
                if role is not None and role.name in UNITS:
                    cells += [
                        Cell(label, model, schedule, role.name, printed, scale, ratio,
                             base if ratio else None, unit, _part(role.heading), role.per_layer,
                             precision, max(self.images, frames))
                        for printed, scale, ratio, unit in self._numbers(text, role)
                    ]  # fmt: skip
        return cells

    def _label(self, name: str, section: str, seen: dict[str, int]) -> str:
        """A row's name with what tells it from others of that name."""
        parts = ("model", "precision", "mean", "tokens", "per_frame", "keep", "layer", "prune")
        more = [text for text in (*map(self.said, parts), section) if text and text not in name]
        label = f"{name} ({', '.join(more)})" if more else name
        seen[label] = seen.get(label, 0) + 1
        return label if seen[label] == 1 else f"{label} [{seen[label]}]"

    def _numbers(self, text: str, role: Role) -> list[tuple[str, float, str, str]]:
        """The number in a cell, and a ratio behind it: (printed, scale, ratio, unit)."""
        found: list[tuple[str, float, str, str]] = []
        # In a heading an arrow says which way is better.
        words = re.sub("[\u2191\u2193]", "", role.heading.lower())
        # A comma before one or two digits, or behind a 0, is a decimal one.
        text = _SPREAD.sub("", text)
        text = re.sub(r"(?<![\d,.])(?:(\d+),(?=\d\d?(?![\d,.]))|(0),(?=\d))", r"\1\2.", text)
        for match in list(_NUMBER.finditer(text))[:2]:
            before, printed, unit = match[1], match[2].replace(",", ""), match[4].lower()
            ratio, scale, said = role.ratio, role.scale, role.unit
            second = found and not found[0][2]
            if unit in ("x", "\u00d7"):
                ratio, scale, said = "times", 1.0, "x"
            elif unit == "%" or (second and before):
                less = bool(re.search("[\u2193\u2212-]", before + (match[5] or "")))
                ratio = ratio or ("saved" if less else ratio_of(words))
                scale, said = 0.01, "%"
            elif second:
                break  # a footnote's number, or another remark
            elif unit and (known := unit_of(role.name, f"{printed}{unit}")):
                said, scale = known
            if match[3]:
                said, scale = f"e{match[3]} {said}".rstrip(), (scale or 1.0) * 10.0 ** int(match[3])
            if second and re.search("[\u2191+]", before):
                break  # so much more than the base, which is no ratio that is looked at
            if scale is None and ratio:
                scale = 1.0 if float(printed) <= 1.5 or ratio == "times" else 0.01
            if scale is None:
                example = "ms" if role.name == "time" else "T"
                self.remarks[
                    f"column {shown(role.heading)} has no unit and is left out; name it, such as "
                    f"--column '{role.heading[:40]}={role.name} {example}'"
                ] = None
                break
            if found and (found[0][2] or not ratio):
                break
            found.append((printed, scale, ratio, said))
        return found

    def _schedule(
        self, name: str, model: str, section: str, full: float, frames: int, *, based: bool
    ) -> Schedule | None:
        """The visual tokens of a row, and whether they are stated or a method's default."""
        if self.said("schedule"):
            return parse_schedule(self.said("schedule"), full, frames)
        kept = self._kept(name, section)
        name = re.sub(r"\s*=\s*", "=", name)
        layer = re.search(r"\d{1,4}", self.said("layer")) or re.search(r"(?<=K=)\d{1,4}", name)
        words = " ".join([name, *map(self.said, ("tokens", "keep", "prune", "layer"))])
        # A row that is named as a model, before any reduced one, is the model's own.
        baseline = bool(_BASELINE.search(words)) or (not based and is_model(self.said("method")))
        method = _method(name)
        if kept is None and method == "vtw":
            kept = "0"  # what it keeps is nothing
        if kept is None and baseline:
            kept = "V"
        elif baseline and kept and not layer and re.fullmatch(r"[1-9]\d{0,6}", kept):
            # An unreduced row states what its model sees, such as a picture's tiles.
            self.full[model] = full = float(kept)
        if kept is None:
            alone = based or method or not full
            return None if alone else parse_schedule("0:V", full, frames, "inferred")
        if self.said("mean") or re.search(r"averag|\bavg|mean", section.lower()):
            return parse_schedule(f"mean:{kept}", full, frames)
        if kept == "V" or (layer is None and kept == f"{full:g}"):
            return parse_schedule("0:V", full, frames)
        start = int(layer[0]) if layer else None
        kind: Kind = "stated"
        if start is None and method and method_info(method).place == "llm-layer":
            start = method_info(method).default_layer
            kind = "inferred" if start is None else "default"
            how = "is read as the same in every layer, which is no evidence"
            if start is not None:
                how = f"acts at layer {start}, its default"
            self.remarks[f"{method} {how}: the table states no layer"] = None
        text = f"0:V;{start}:{kept}" if start else f"0:{kept}"
        return parse_schedule(text, full, frames, kind)

    def _kept(self, name: str, section: str) -> str | None:
        """Tokens kept, as a schedule writes them: a count, or a share such as 0.5V."""
        each = re.search(_COUNT, self.said("per_frame"))
        frames = re.search(r"\d{1,4}", self.said("frames"))
        if each and frames:
            return f"{float(each[0].replace(',', '')) * int(frames[0]):g}"
        for text in (self.said("mean"), self.said("tokens"), self.said("keep")):
            for number, percent in re.findall(rf"({_COUNT}|\.\d{{1,9}})\s*(%?)", text):
                plain = number.replace(",", "")
                decimals = len(plain.partition(".")[2])
                if percent:
                    return f"{float(plain) / 100:.{decimals + 2}f}V"
                return f"{plain}V" if decimals and float(plain) <= 1 else plain
        pruned = re.search(_SHARE, self.said("prune")) or re.search(rf"\bR\s*=\s*{_SHARE}", name)
        if pruned:
            value = float(pruned[1])
            return f"{max(1 - value / (100 if pruned[2] or value > 1 else 1), 0):.6g}V"
        words = f"{section} {name}".lower()
        inside = re.search(rf"({_COUNT})\s*(?:visual |vision |image )?tokens", words)
        return inside[1].replace(",", "") if inside else None


def _method(name: str) -> str | None:
    """The registered method that a row's name starts with, or names behind `+`, `w/` or `with`."""
    last = re.split(r"(?:^|\s)\+\s*(?=\S)|\bw/\s*|\bwith\s", name.lower().split("(")[0])[
        -1
    ].lstrip()
    last = last.replace("pdrop", "pyramiddrop")

    def spelled(method: str) -> str:
        return r"[\W_]*".join(map(re.escape, re.sub(r"[^a-z0-9+]", "", method))) + "(?![a-z])"

    found = [method for method in list_methods() if re.match(spelled(method), last)]
    return max(found, key=len, default="") or None


def _part(heading: str) -> str:
    lowered = heading.lower().replace("_", " ")
    return next((part for part, words in _PARTS.items() if re.search(words, lowered)), "total")
