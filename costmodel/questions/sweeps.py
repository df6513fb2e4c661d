"""`sweep`: every combination of its arguments, one row each, through the same path as `estimate`.

The arguments that are numbers (visual and text tokens, batch, output) run as numpy arrays; the
others are looped over. Rows come in the order of the arguments, the last one fastest. `sweep_chunks`
yields bounded pieces, so that 10^8 scenarios stream to a file in constant memory.

>>> from costmodel import sweep
>>> table = sweep("llava-1.5-7b", "nvidia-a100-sxm4-80gb", visual_tokens=[576, 64])
>>> list(table["flops"].astype("int64"))
[8583722926080, 1759019892736]
"""

from __future__ import annotations

from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.estimates import context_for
from costmodel.kinds import Schedule, Size
from costmodel.quantities import COST_KEYS, MEMORY_KEYS, MOST_TOKENS, REQUEST, STAGES
from costmodel.questions.chunks import COUNTS, Chunk, join_chunks
from costmodel.request import ARGUMENTS, OUR_DEFAULTS, Request, check_names, names_of, plain
from costmodel.roofline import StageCost, added
from costmodel.scenario import Scenario, Units, units_of, within_budget
from costmodel.uncertainty import BRACKET
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from hardware_specs.showing import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from costmodel.evaluate import Context, Evaluation

#: Arguments that are looped over, outermost first.
CATEGORIES = tuple(name for name in names_of("subject", "setting", "shape") if name != "convention")
#: Arguments that are arrays, outermost first.
NUMBERS = names_of("number")
#: Arguments whose one value is a list of whole numbers.
_SEQUENCES = tuple(n for n, known in ARGUMENTS.items() if isinstance(known.kind, (Schedule, Size)))
#: Arguments that a context resolves.
_SETTLED = names_of("subject", "setting")
#: Scenarios priced at a time: the arrays of one chunk, 48 KiB each, stay in the processor's cache, and below
#: the 128 KiB from which the C library asks the system for each array anew.
CHUNK_ROWS = 6 << 10

_COSTS = tuple(name for name in COST_KEYS if name != "bound")
_MEMORY = tuple(name for name in MEMORY_KEYS if name not in ("weight_bytes", "capacity_bytes"))
#: Columns every row has; `stage_columns=True` adds `<stage>_<cost>` for each stage.
SHARES = ("measured_share", "transferred_share", "assumed_share")
COLUMNS = (*_COSTS, "ttft_s", "tpot_s", "bound", *SHARES, "model_weight_bytes", *_MEMORY)


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
        self.rows = self.inner_rows * self._combined()

    def _combined(self) -> int:
        """Return how many `combinations` yields, without going through them: they may be millions."""
        lengths = {name: len(values) for name, values in self.categories.items()}
        settings = lengths.pop("keep") * lengths.pop("layer")
        methods = lengths.pop("method")
        reduced = methods - sum(map(_unreduced, self.categories["method"]))
        return prod(lengths.values()) * (
            reduced * settings + (methods - reduced) * (1 if reduced else settings)
        )

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the values of the categories, the last one varying fastest.

        Beside methods, the unreduced model is their baseline: what they keep, and from which layer,
        is nothing to it, so it comes once and not once per setting.
        """
        methods = self.categories["method"]
        beside = any(not _unreduced(method) for method in methods)
        for positions in product(*(range(len(values)) for values in self.categories.values())):
            place = dict(zip(self.categories, positions, strict=True))
            arguments = {name: values[place[name]] for name, values in self.categories.items()}
            if beside and _unreduced(arguments["method"]):
                if place["keep"] or place["layer"]:
                    continue
                arguments.update(keep=None, layer=None)
            yield arguments

    def chunks(
        self, *, chunk_rows: int = CHUNK_ROWS, stage_columns: bool = False, errors: str = "raise"
    ) -> Iterator[Chunk]:
        """Yield the sweep piece by piece, in the order of its rows.

        Args:
            chunk_rows: most rows of one piece.
            stage_columns: whether to add the costs of each stage.
            errors: `raise` stops at a combination that cannot be priced (such as FP8 on a device
                without it); `keep` yields its rows empty, the reason in the column `error`.
        """
        if errors not in ("raise", "keep"):
            raise InvalidInputError(f"errors={errors!r} is unknown; there is: raise, keep")
        for arguments in self.combinations():
            fixed = _FIXED | {
                name: value if type(value) is tuple else plain(value)
                for name, value in arguments.items()
            }
            context = units = None
            reason = ""
            try:
                request = Request(**arguments)
                context = context_for(request)
                # A row's keep and layer have columns of their own.
                label = "none" if context.method is None else context.method.label
                fixed |= {name: context.inputs[name] for name in _SETTLED} | {"method": label}
                kind = "none" if context.calibration is None else context.calibration.kind
                fixed["calibration_kind"] = kind
                units = _units(context, request)
            except VlmRooflineError as error:
                if errors == "raise":
                    raise
                reason = _one_line(error)
            for start in range(0, self.inner_rows, chunk_rows):
                stop = min(start + chunk_rows, self.inner_rows)
                if context is None or reason:
                    yield self._unpriced(start, stop, fixed, reason, stage_columns)
                elif errors == "raise":
                    scenario = self._scenario(start, stop, units)
                    yield _price(context, fixed, scenario, stop - start, stage_columns)
                else:
                    yield from self._kept(start, stop, context, fixed, units, stage_columns)

    def _kept(
        self,
        start: int,
        stop: int,
        context: Context,
        fixed: dict[str, Any],
        units: Units | None,
        stage_columns: bool,
    ) -> Iterator[Chunk]:
        """Price rows; where that fails, the rows of each prompt length apart."""
        try:
            scenario = self._scenario(start, stop, units)
            chunk = _price(context, fixed, scenario, stop - start, stage_columns)
        except VlmRooflineError as error:
            # Whether a method can act depends on the prompt, not on batch or output.
            prompts = np.arange(start, stop) // prod(self.shape[NUMBERS.index("batch_size") :])
            borders = np.flatnonzero(np.diff(prompts)) + 1
            if not len(borders):
                yield self._unpriced(start, stop, fixed, _one_line(error), stage_columns)
                return
            edges = [start, *(start + borders), stop]
            for low, high in pairwise(edges):
                yield from self._kept(int(low), int(high), context, fixed, units, stage_columns)
        else:
            yield chunk._replace(fixed={**chunk.fixed, "error": None})

    def _scenario(self, start: int, stop: int, units: Units | None) -> Scenario:
        columns = self._rows(start, stop)
        visual = columns["visual_tokens"]
        images = projected = crops = each = np.zeros_like(visual)
        seen = None
        if units is not None:
            if self.default_visual:
                visual = np.full_like(visual, units.counted.tokens)
            images, crops, projected, each = (
                np.broadcast_to(np.asarray(count, dtype=float), visual.shape)
                for count in units.read(visual)
            )
            seen = units.tower(visual, images, asked=not self.default_visual)
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
        )

    def _rows(self, start: int, stop: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the numbers of the rows from `start` to `stop`."""
        index = np.unravel_index(np.arange(start, stop), self.shape)
        return {
            name: array[where]
            for (name, array), where in zip(self.numbers.items(), index, strict=True)
        }

    def _unpriced(
        self, start: int, stop: int, fixed: dict[str, Any], reason: str, stage_columns: bool
    ) -> Chunk:
        """Return rows without costs, with the reason in `error`."""
        rows = {name: column.astype(np.int64) for name, column in self._rows(start, stop).items()}
        if self.default_visual:
            del rows["visual_tokens"]
        fixed = dict(fixed)
        images = fixed.pop("images")
        # The reason may be that it is no count at all.
        if type(images) is int and 0 <= images <= MOST_TOKENS:
            rows["images"] = np.full(stop - start, images, dtype=np.int64)
        names = [*COUNTS, *COLUMNS]
        if stage_columns:
            names += [f"{stage}_{name}" for stage in STAGES for name in (*_COSTS, "bound")]
        columns = {name: rows.get(name) for name in names}
        return Chunk({**fixed, "error": reason}, columns, stop - start)


def _unreduced(method: Any) -> bool:
    return method is None or (isinstance(method, str) and method.lower() == "none")


def _one_line(error: VlmRooflineError) -> str:
    return " ".join(str(error).split())


#: The columns of a row's fixed values, in their order.
_FIXED: dict[str, Any] = {
    name: OUR_DEFAULTS.get(name) for name in names_of("subject", "setting", "shape")
} | {"calibration_kind": None}


def _units(context: Context, request: Request) -> Units | None:
    model = within_budget(context.model, request)
    if model.vision is None:
        model.visual_input(
            image_size=request.image_size, frames=request.frames, images=request.images
        )  # refuses them
        return None
    return units_of(model, request)


def _price(
    context: Context, fixed: dict[str, Any], scenario: Scenario, rows: int, stage_columns: bool
) -> Chunk:
    evaluation = context.evaluate(scenario, vector=True)
    counts = {name: getattr(scenario, name).astype(np.int64) for name in COUNTS}
    columns = _total_columns(evaluation, scenario)
    if stage_columns:
        for stage in STAGES:
            for name in _COSTS:
                columns[f"{stage}_{name}"] = getattr(evaluation.stages[stage], name)
            columns[f"{stage}_bound"] = evaluation.stages[stage].bound_code
    for name, column in columns.items():
        if column is not None and name != "fits" and not name.endswith("bound"):
            column = np.asarray(column, dtype=np.float64)
        columns[name] = None if column is None else np.broadcast_to(column, (rows,))
    # How many images there are, a column says row by row.
    fixed = {name: value for name, value in fixed.items() if name != "images"}
    return Chunk(fixed, {**counts, **columns}, rows, context.warnings)


def _total_columns(evaluation: Evaluation, scenario: Scenario) -> dict[str, Any]:
    """Return the columns of `COLUMNS`."""
    stages = evaluation.stages
    running = [
        cost
        for name, cost in stages.items()
        if name in (REQUEST, "prefill") or np.any(cost.kernels)
    ]
    total = StageCost(*added(running))
    decode = stages["decode"].time_s
    first = sum(cost.time_s for name, cost in stages.items() if name != "decode")
    steps = scenario.output_tokens
    memory = evaluation.memory
    return {
        **{name: getattr(total, name) for name in _COSTS},
        "ttft_s": first,
        "tpot_s": np.where(steps > 0, decode / np.maximum(steps, 1), np.nan),
        "bound": total.bound_code,
        **_share_columns(total),
        "model_weight_bytes": memory.weight_bytes,
        **{name: getattr(memory, name) for name in _MEMORY},
    }


def _share_columns(total: StageCost) -> dict[str, Any]:
    """Return the shares of the time that rest on measured, transferred and assumed parameters."""
    assert total.errors is not None  # noqa: S101 - only conventions have none
    if BRACKET in total.errors.parts:
        return dict.fromkeys(SHARES)
    return {f"{name}_share": share for name, share in total.errors.shares().items()}


def sweep_chunks(
    model: Any,
    hardware: Any,
    *,
    chunk_rows: int = CHUNK_ROWS,
    stage_columns: bool = False,
    errors: str = "raise",
    **arguments: Any,
) -> Iterator[Chunk]:
    """Yield a sweep in bounded pieces; arguments as `sweep`."""
    plan = SweepPlan(model, hardware, **arguments)
    return plan.chunks(chunk_rows=chunk_rows, stage_columns=stage_columns, errors=errors)


def sweep(
    model: Any,
    hardware: Any,
    *,
    stage_columns: bool = False,
    errors: str = "raise",
    **arguments: Any,
) -> pd.DataFrame:
    """Price every combination of the arguments, one row each.

    Args:
        model: a model in any form that `estimate` takes, or a list of them.
        hardware: a device in any form that `estimate` takes, or a list of them.
        stage_columns: whether to add `<stage>_<cost>` columns.
        errors: `raise`, or `keep` to yield combinations that cannot be priced as empty rows with
            their reason in the column `error`.
        arguments: any other argument of `estimate` (but `convention`), a value or a list each.
            Among several methods, `keep` and `layer` do not apply to "none": it is priced once.

    Returns:
        Names as categories, token counts and batch as integers, everything else as float64 (exact
        below 2^53; `estimate` counts exactly beyond). With `errors="keep"` there is a column `error`.
        `attrs["warnings"]` has what the checkpoints' precision has to say on the devices.

    Raises:
        VlmRooflineError: a bad argument.

    >>> table = sweep("llava-1.5-7b", ["nvidia-t4", "nvidia-l4"], batch_size=[1, 8])
    >>> len(table), list(table.columns[:4])
    (4, ['model', 'hardware', 'precision', 'method'])
    """
    return join_chunks(
        list(sweep_chunks(model, hardware, stage_columns=stage_columns, errors=errors, **arguments))
    )
