"""The grid of a sweep: which combinations there are, which number each row has, and their pieces.

The arguments that are numbers (visual and text tokens, batch, output) run as numpy arrays; the others are
looped over. Rows come in the order of the arguments, the last one fastest, and are numbered from 0. Their
pieces have numbers too, which depend on the grid alone: whoever prices a piece finds the same numbers.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import accumulate, pairwise
from math import prod
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.estimates import context_for
from costmodel.kinds import Schedule, Size
from costmodel.methods import Method
from costmodel.quantities import MOST_TOKENS, STAGES
from costmodel.questions.chunks import COUNTS, Chunk
from costmodel.questions.sweep_columns import COLUMNS, COSTS, price
from costmodel.request import ARGUMENTS, OUR_DEFAULTS, Request, check_names, names_of, plain
from costmodel.scenario import Scenario, Units, units_of, within_budget
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from hardware_specs.files.reading import read_bytes, user_path
from hardware_specs.showing import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from costmodel.evaluate import Context
    from costmodel.models.geometry import Part, Seen

#: Arguments that are looped over, outermost first.
CATEGORIES = tuple(name for name in names_of("subject", "setting", "shape") if name != "convention")
#: Arguments that are arrays, outermost first.
NUMBERS = names_of("number")
#: Arguments whose one value is a list of whole numbers.
_SEQUENCES = tuple(n for n, known in ARGUMENTS.items() if isinstance(known.kind, (Schedule, Size)))
#: Arguments that a context resolves.
_SETTLED = names_of("subject", "setting")
#: What a baseline has none of, side by side among the categories.
_METHOD = ("method", "keep", "layer")
#: Scenarios priced at a time: the arrays of one chunk, 48 KiB each, stay in the processor's cache, and below
#: the 128 KiB from which the C library asks the system for each array anew.
CHUNK_ROWS = 6 << 10


def _as_list(name: str, value: Any) -> list[Any]:
    """Return the values of one argument; strings, mappings and one image size are one value."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    several = isinstance(value, (list, tuple, range)) and not hasattr(value, "_fields")
    if not several or (name in _SEQUENCES and all(isinstance(entry, int) for entry in value)):
        return [value]
    if not value:
        raise InvalidInputError(f"{name} is an empty list; give at least one value")
    return list(value)


def _numbers(name: str, value: Any, least: int) -> np.ndarray[Any, Any]:
    """Return the values of a numeric argument as float64: a float holds every count up to 2^53."""
    try:
        # numpy would walk through a range number by number.
        array = (
            np.arange(value.start, value.stop, value.step)
            if isinstance(value, range)
            else np.atleast_1d(value)
        )
    except (TypeError, ValueError):
        array = np.asarray(["?"])
    whole = array.ndim == 1 and array.dtype.kind in "iu" and array.size > 0
    if not whole or array.min() < least or array.max() > MOST_TOKENS:
        raise InvalidInputError(
            f"{name} must be whole numbers from {least} to {MOST_TOKENS}, at least one, not "
            f"{shown(value)}"
        )
    return array.astype(np.float64)


class Settled(NamedTuple):
    """A combination as far as it does not depend on the numbers.

    Attributes:
        fixed: the columns whose values hold for all of its rows.
        context: what prices them; None where nothing can.
        units: what visual tokens are counted in; None for a model of text.
        reason: why nothing can price it, in one line.
    """

    fixed: dict[str, Any]
    context: Context | None = None
    units: Units | None = None
    reason: str = ""


class SweepPlan:
    """The grid of a sweep: its categories, its numbers, and how many rows that makes.

    Args:
        model: a model or a list of them.
        hardware: a device or a list of them.
        arguments: the other arguments of `estimate`, each a value or a list.

    Raises:
        InvalidInputError: an argument `estimate` does not have, or a value out of range.
    """

    def __init__(self, model: Any, hardware: Any, **arguments: Any) -> None:
        if "convention" in arguments:
            raise InvalidInputError(
                "sweep counts by the 'torch' convention; for others call estimate, or "
                "`vlm-roofline reproduce`"
            )
        check_names(arguments, by="sweep")
        given = {"model": model, "hardware": hardware, **OUR_DEFAULTS, **arguments}
        self.categories = {name: _as_list(name, given[name]) for name in CATEGORIES}
        numbers = {name: given[name] for name in NUMBERS}
        visual = numbers["visual_tokens"]
        if isinstance(visual, (list, tuple)) and any(value is None for value in visual):
            if len(visual) > 1:
                raise InvalidInputError(
                    "visual_tokens mixes None with numbers; give one or the other"
                )
            visual = None
        self.default_visual = visual is None
        numbers["visual_tokens"] = 0 if visual is None else visual
        self.default_text = arguments.get("text_tokens") is None
        if numbers["text_tokens"] is None:
            numbers["text_tokens"] = OUR_DEFAULTS["text_tokens"]
        self.numbers = {
            name: _numbers(name, value, 1 if name == "batch_size" else 0)
            for name, value in numbers.items()
        }
        self.shape = tuple(len(array) for array in self.numbers.values())
        self.inner_rows = prod(self.shape)
        #: Rows that differ in their decode steps alone stand side by side.
        self.block_rows = self.shape[-1]
        methods = self.categories["method"]
        beside = not all(map(unreduced, methods))
        settings = len(self.categories["keep"]) * len(self.categories["layer"])
        # Beside methods, the unreduced model is their baseline: what they keep, and from which layer,
        # is nothing to it, so it comes once and not once per setting.
        each = [1 if beside and unreduced(method) else settings for method in methods]
        self._beside, self._settings = beside, list(accumulate(each, initial=0))
        others = [len(values) for name, values in self.categories.items() if name not in _METHOD]
        self.combined = prod(others) * self._settings[-1]
        self.rows = self.inner_rows * self.combined

    def combination(self, number: int) -> dict[str, Any]:
        """Return the values of the categories of a combination; the last one varies fastest.

        Args:
            number: which one, from 0 to before `combined`.
        """
        arguments: dict[str, Any] = {}
        for name, values in reversed(self.categories.items()):
            if name not in _METHOD:
                number, place = divmod(number, len(values))
                arguments[name] = values[place]
            elif name == "method":
                number, setting = divmod(number, self._settings[-1])
                place = int(np.searchsorted(self._settings, setting, side="right")) - 1
                arguments |= {"method": values[place], "keep": None, "layer": None}
                if not (self._beside and unreduced(values[place])):
                    keeps, layers = self.categories["keep"], self.categories["layer"]
                    keep, layer = divmod(setting - self._settings[place], len(layers))
                    arguments |= {"keep": keeps[keep], "layer": layers[layer]}
        return {name: arguments[name] for name in self.categories}

    def identity(self) -> dict[str, Any]:
        """Return what tells this grid from others, as JSON has it: values, and digests of objects."""
        return {
            **{name: [_digest(v) for v in values] for name, values in self.categories.items()},
            **{name: _sha256(values.tobytes()) for name, values in self.numbers.items()},
            "defaults": [self.default_visual, self.default_text],
        }

    def piece_rows(self, chunk_rows: int = CHUNK_ROWS) -> int:
        """Return the rows of a piece of at most so many: whole blocks of decode steps, where they fit."""
        chunk_rows = min(chunk_rows, self.inner_rows)
        return max(chunk_rows - chunk_rows % self.block_rows, 0) or chunk_rows

    def pieces(self) -> int:
        """Return how many pieces there are, of `CHUNK_ROWS` at most."""
        return self.combined * -(-self.inner_rows // self.piece_rows())

    def chunks(
        self,
        *,
        chunk_rows: int = CHUNK_ROWS,
        stage_columns: bool = False,
        errors: str = "raise",
        columns: Collection[str] | None = None,
        part: range | None = None,
    ) -> Iterator[Chunk]:
        """Yield the sweep piece by piece, in the order of its rows.

        Args:
            chunk_rows: most rows of one piece.
            stage_columns: whether to add the costs of each stage.
            errors: `raise` stops at a combination that cannot be priced (such as FP8 on a device
                without it); `keep` yields its rows empty, the reason in the column `error`.
            columns: the columns to work out; None for all.
            part: the numbers of the pieces to yield; None for all.
        """
        if errors not in ("raise", "keep"):
            raise InvalidInputError(f"errors={errors!r} is unknown; there is: raise, keep")
        step = self.piece_rows(chunk_rows)
        each = -(-self.inner_rows // step)
        held, settled = -1, Settled({})
        for number in range(self.combined * each) if part is None else part:
            combination, start = number // each, number % each * step
            if combination != held:
                held, settled = combination, self._settled(combination, errors)
            where = np.arange(start, min(start + step, self.inner_rows))
            yield from self._priced(
                settled,
                held * self.inner_rows,
                where,
                errors,
                stage_columns=stage_columns,
                columns=columns,
            )

    def at(self, rows: Sequence[int] | np.ndarray) -> list[Chunk]:
        """Return the rows of some numbers, each combination's in pieces of its own, in the order of the rows.

        Args:
            rows: their numbers, ascending.
        """
        chunks: list[Chunk] = []
        numbers = np.asarray(rows, dtype=np.int64)
        combinations = numbers // self.inner_rows
        for combination in np.unique(combinations):
            settled = self._settled(int(combination), "raise")
            first = int(combination) * self.inner_rows
            where = numbers[combinations == combination] - first
            chunks += self._priced(settled, first, where, "raise")
        return chunks

    def _settled(self, combination: int, errors: str) -> Settled:
        arguments = self.combination(combination)
        fixed = _FIXED | {
            name: value if type(value) is tuple else plain(value)
            for name, value in arguments.items()
        }
        try:
            request = Request(**arguments)
            context = context_for(request)
            # A row's keep and layer have columns of their own.
            label = "none" if context.method is None else context.method.label
            fixed |= {name: context.inputs[name] for name in _SETTLED} | {"method": label}
            kind = "none" if context.calibration is None else context.calibration.kind
            fixed["calibration_kind"] = kind
            model = within_budget(context.model, request)
            return Settled(fixed, context, units_of(model, request))
        except VlmRooflineError as error:
            if errors == "raise":
                raise
            return Settled(fixed, reason=one_line(error))

    def _priced(
        self, settled: Settled, first: int, where: np.ndarray, errors: str, **wanted: Any
    ) -> Iterator[Chunk]:
        """Yield rows of one combination, in as many pieces as it takes.

        Where some cannot be priced, those of each prompt length are a piece; and where images differ in size,
        those with all of their tokens, which are priced size by size.

        Args:
            settled: the combination.
            first: the number of its first row.
            where: which of its rows, ascending.
            errors: as of `chunks`.
            wanted: `stage_columns` and `columns` of `chunks`.
        """
        if settled.context is None:
            yield self._unpriced(first, where, settled.fixed, settled.reason, **wanted)
            return
        units, borders = settled.units, np.empty(0, dtype=int)
        if units is not None and units.parts and not self.default_visual:
            whole = self._rows(where)["visual_tokens"] == units.counted.tokens
            borders = np.flatnonzero(np.diff(whole)) + 1
        if not len(borders):
            # Blocks that begin and end with the piece may share what comes before the decode.
            repeat = self.block_rows
            if len(where) % repeat or where[0] % repeat or where[-1] - where[0] + 1 != len(where):
                repeat = 1
            try:
                scenario = self._scenario(where, units)
                chunk = price(
                    settled.context,
                    settled.fixed,
                    scenario,
                    first=first + int(where[0]),
                    repeat=repeat,
                    **wanted,
                )
            except VlmRooflineError as error:
                if errors == "raise":
                    raise
                # Whether a method can act depends on the prompt, not on batch or output.
                prompts = where // prod(self.shape[NUMBERS.index("batch_size") :])
                borders = np.flatnonzero(np.diff(prompts)) + 1
                if not len(borders):
                    yield self._unpriced(first, where, settled.fixed, one_line(error), **wanted)
                    return
            else:
                fixed = chunk.fixed if errors == "raise" else {**chunk.fixed, "error": None}
                yield chunk._replace(fixed=fixed)
                return
        for low, high in pairwise([0, *borders, len(where)]):
            yield from self._priced(settled, first, where[low:high], errors, **wanted)

    def _scenario(self, where: np.ndarray, units: Units | None) -> Scenario:
        columns = self._rows(where)
        visual = columns["visual_tokens"]
        images = projected = crops = each = np.zeros_like(visual)
        seen: Seen | None = None
        parts: tuple[Part, ...] = ()
        if units is not None:
            if self.default_visual:
                visual = np.full_like(visual, units.counted.tokens)
            images, crops, projected, each = (
                np.broadcast_to(np.asarray(count, dtype=float), visual.shape)
                for count in units.read(visual)
            )
            seen = units.tower(visual, images, asked=not self.default_visual)
            parts = units.parts_of(visual)
            if self.default_text:
                columns["text_tokens"] = columns["text_tokens"] + units.text
        if np.any(visual + columns["text_tokens"] == 0):
            raise InvalidInputError("visual_tokens and text_tokens are both 0: there is no prompt")
        return Scenario(
            visual,
            projected,
            crops,
            columns["text_tokens"],
            columns["batch_size"],
            columns["output_tokens"],
            each,
            images,
            columns["cached_tokens"],
            seen,
            units is not None and units.framed,
            parts,
        )

    def _rows(self, where: np.ndarray) -> dict[str, np.ndarray]:
        """Return the numbers of some rows of a combination."""
        index = np.unravel_index(where, self.shape)
        return {
            name: array[at] for (name, array), at in zip(self.numbers.items(), index, strict=True)
        }

    def _unpriced(
        self,
        first: int,
        where: np.ndarray,
        fixed: dict[str, Any],
        reason: str,
        stage_columns: bool = False,
        columns: Collection[str] | None = None,
    ) -> Chunk:
        """Return rows without costs, with the reason in `error`."""
        rows = {name: column.astype(np.int64) for name, column in self._rows(where).items()}
        if self.default_visual:
            del rows["visual_tokens"]
        fixed = dict(fixed)
        images = fixed.pop("images")
        # The reason may be that it is no count at all.
        if type(images) is int and 0 <= images <= MOST_TOKENS:
            rows["images"] = np.full(len(where), images, dtype=np.int64)
        names = [*COUNTS, *COLUMNS]
        if stage_columns:
            names += [f"{stage}_{name}" for stage in STAGES for name in (*COSTS, "bound")]
        held = {name: rows.get(name) for name in names if columns is None or name in columns}
        return Chunk({**fixed, "error": reason}, held, len(where), first=first + int(where[0]))


def _digest(value: Any) -> Any:
    """Return a name or number as it is, and anything else by its content; of a file both."""
    if isinstance(value, (str, PathLike)):
        named = fspath(value)
        held = [_sha256(read_bytes(path, "model config")) for path in _files(named)]
        return [named, *held] if held else named
    if value is None or isinstance(value, (int, float)):
        return value
    return _sha256(repr(_content(value)).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _files(named: str) -> list[Path]:
    """Return the file of a device, calibration or model that an argument names, if it names one."""
    with suppress(OSError, ValueError, VlmRooflineError):
        path = user_path(named)
        return [each for each in (path, path / "config.json") if each.is_file()]
    return []


def _content(value: Any) -> Any:
    """Return what an object says, whoever has used or sent it before: its pickle differs by that."""
    if isinstance(value, Method):
        return str(value)
    if is_dataclass(value):
        said = [(each.name, getattr(value, each.name)) for each in fields(value) if each.compare]
        return type(value).__qualname__, _content(said)
    if isinstance(value, Mapping):
        return sorted((repr(key), _content(entry)) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return [_content(entry) for entry in value]
    if callable(value):
        return value.__module__, value.__qualname__
    plain_value = value is None or isinstance(value, (str, bytes, int, float))
    return value if plain_value else pickle.dumps(value)


def unreduced(method: Any) -> bool:
    """Whether a request's `method` is none."""
    return method is None or (isinstance(method, str) and method.lower() == "none")


#: The columns of a row's fixed values, in their order.
_FIXED: dict[str, Any] = {
    name: OUR_DEFAULTS.get(name) for name in names_of("subject", "setting", "shape")
} | {"calibration_kind": None}
