"""What a published table holds: cells with their printed digits, and token schedules as they are stated.

A schedule is written `0:V;2:0.5V` (from layer 0 all V visual tokens, from layer 2 half of them), `0:64`,
`0:V;13:frozen` (from layer 13 visual tokens are keys and values only), `mean:64` or `unknown`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from costmodel.reproduce.digits import decimals
from hardware_specs.errors import InvalidFileError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where a schedule comes from: the table, the named method's default, or a guess, which is no evidence.
Kind = Literal["stated", "default", "inferred"]
#: Tokens that no table has in a layer.
MOST_IN_A_LAYER = 10_000_000
_STEP = re.compile(
    r"(?:(\d{1,4}|mean):)?(\d{1,8}(?:\.\d{1,9})?|\.\d{1,9})?(V|frozen)?", re.IGNORECASE
)


class Step(NamedTuple):
    """From one layer on: a count of tokens, a share of the full count, or frozen tokens."""

    layer: int
    tokens: float
    share: bool
    frozen: bool
    half: float


class Span(NamedTuple):
    """A number of layers that see the same visual tokens."""

    layers: int
    tokens: float
    frozen: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """The visual tokens of every layer, as a table states them.

    Attributes:
        text: as written.
        steps: from which layer on how many.
        full: visual tokens V of the unreduced model.
        frames: frames or images that V is made of.
        mean: whether only a mean over layers is stated; it is counted in every layer.
        kind: stated, a method's default, or inferred.
    """

    text: str
    steps: tuple[Step, ...]
    full: float
    frames: int = 1
    mean: bool = False
    kind: Kind = "stated"

    @property
    def uniform(self) -> float | None:
        """Visual tokens of every layer, None where layers differ or a share is to be rounded."""
        first = self.steps[0]
        if len(self.steps) > 1 or first.frozen:
            return None
        return first.tokens * self.full if first.share else first.tokens

    def spans(
        self, layers: int, *, shift: int = 0, rounding: str = "real", label: float = 0
    ) -> list[Span]:
        """Return the layers with their visual tokens, read one way.

        `shift` is added to every layer K behind the first, shares are rounded, and `label` is how many
        half units (-1 to 1) a rounded label is off by.

        >>> parse_schedule("0:V;2:0.1V", 576).spans(32, rounding="floor")
        [Span(layers=2, tokens=576, frozen=False), Span(layers=30, tokens=57, frozen=False)]
        """
        starts = [0] + [min(max(s.layer + shift, 0), layers) for s in self.steps[1:]] + [layers]
        found = []
        for step, start, end in zip(self.steps, starts, starts[1:], strict=False):
            if end <= start:
                continue
            count = step.tokens + label * step.half
            tokens = count * self.full if step.share else count
            if step.share:
                tokens = _rounded(tokens, rounding, self.frames)
            found.append(Span(end - start, max(tokens, 0), step.frozen))
        return found


def _rounded(tokens: float, rounding: str, frames: int) -> float:
    if rounding == "real":
        return tokens
    if rounding == "frame":
        return frames * math.floor(tokens / frames + 1e-9)
    return math.floor(tokens + (0.5 if rounding == "round" else 0) + 1e-9)


def parse_schedule(
    text: str, full: float, frames: int = 1, kind: Kind = "stated"
) -> Schedule | None:
    """Return the schedule that a text names, None for `unknown`.

    Raises:
        InvalidFileError: the text is no schedule.

    >>> parse_schedule("0:V;16:0", 576).spans(32)[1]
    Span(layers=16, tokens=0.0, frozen=False)
    """
    written = "".join(text.split())
    if written.lower() in ("unknown", "", "-", "?"):
        return None
    steps = []
    mean = False
    for part in written.split(";"):
        match = _STEP.fullmatch(part)
        number, word = (match[2], (match[3] or "").lower()) if match else (None, "")
        if match is None or (number is None and not word):
            raise InvalidFileError(
                f"{shown(text)} is no schedule; write one such as 0:V;2:0.5V, 0:64, mean:64 or unknown"
            )
        mean = mean or match[1] == "mean"
        layer = 0 if match[1] in (None, "mean") else int(match[1])
        frozen = word == "frozen"
        share = word == "v" or (frozen and number is None)
        count = 1.0 if number is None else float(number)
        # A mean and a share to a tenth of a percent are rounded labels, 0.5V is a setting.
        digits = decimals(number or "1")
        half = 0.5 * 10.0**-digits if match[1] == "mean" or (share and digits > 2) else 0.0
        if count * (full if share else 1) > MOST_IN_A_LAYER:
            raise InvalidFileError(f"{shown(text)} names more tokens than any table has")
        steps.append(Step(layer, count, share, frozen, half))
    ordered = [step.layer for step in steps]
    if ordered != sorted(set(ordered)) or ordered[0] != 0:
        raise InvalidFileError(f"{shown(text)} must start at layer 0, with layers in order")
    return Schedule(text, tuple(steps), full, frames, mean, kind)


@dataclass(frozen=True, slots=True)
class Cell:
    """One printed number.

    Attributes:
        row: the row it stands in, as the table names it.
        model: a model's name.
        schedule: the visual tokens, None where the table does not say.
        quantity: `flops`, `kv_cache`, `time`, `memory`, `activation` or `rate`.
        printed: its digits.
        scale: SI units per printed unit; of a ratio, 0.01 for percent.
        ratio: what a ratio is: `share` of the base, `saved` share, `times` less; "" for a value.
        base: the row that a ratio refers to.
        unit: as printed.
        part: `total`, `llm`, `vision` or `projector`.
        per_layer: whether the unit says that it is a mean over layers.
        precision: of the row, as printed.
        images: crops or frames through the vision tower.
    """

    row: str
    model: str
    schedule: Schedule | None
    quantity: str
    printed: str
    scale: float
    ratio: str = ""
    base: str | None = None
    unit: str = ""
    part: str = "total"
    per_layer: bool = False
    precision: str = "fp16"
    images: int = 1

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.printed)

    @property
    def step(self) -> float:
        """One unit of the last printed digit."""
        return float(10.0 ** -decimals(self.printed))

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What it depends on: cells that share it must print the same."""
        schedule = self.schedule
        # `0:V` and `0:576` are the same.
        count = None if schedule is None else schedule.uniform
        steps = (schedule.steps, schedule.full) if schedule and count is None else count
        mean = schedule is not None and schedule.mean
        kind = (self.quantity, self.part, self.ratio, self.per_layer, self.images)
        return (self.model, steps, mean, self.precision, *kind)

    def interval(self, *, truncated: bool) -> tuple[float, float]:
        """Return the values that print so, in SI units: rounded half up, or cut off.

        >>> Cell("a", "m", None, "flops", "8.5", 1.0).interval(truncated=True)
        (8.5, 8.6)
        """
        low = self.value - (0.0 if truncated else 0.5 * self.step)
        return low * self.scale, (low + self.step) * self.scale

    @property
    def kind_of_row(self) -> str:
        """The row's name without what tells it from its neighbours: `PruMerge` of `PruMerge (7B, INT4)`."""
        return self.row.split(" (")[0]

    def __str__(self) -> str:
        """Return it as a reader finds it in the table."""
        what = f"{self.quantity} ratio" if self.ratio else self.quantity
        return f"{self.row}, {what.replace('_', ' ')} {self.printed} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table as it was brought.

    Attributes:
        name: what it is called.
        cells: every printed number that has a meaning here.
        about: what its header says (`hardware`, `says`, ...).
        text_tokens: the text length it states.
        remarks: what reading it took for granted.
    """

    name: str
    cells: tuple[Cell, ...]
    about: Mapping[str, str]
    text_tokens: int | None = None
    remarks: tuple[str, ...] = ()

    @property
    def computed_by_tool(self) -> bool:
        """Whether times and memory are LLM-Viewer's roofline: it says so, or has its own columns."""
        words = " ".join(self.about.values()).lower().replace("_", "-")
        tool = "llm-viewer" in words or "llmviewer" in words
        return tool or any(cell.quantity == "activation" for cell in self.cells)
