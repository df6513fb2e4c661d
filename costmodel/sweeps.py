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

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from costmodel.estimates import _context
from costmodel.evaluate import Context, Evaluation, Scenario
from costmodel.inputs import MOST_TOKENS, visual_units
from costmodel.quantities import STAGES
from costmodel.roofline import BOUNDS
from hardware_specs.errors import InvalidInputError, UnknownNameError, VlmRooflineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from costmodel.models import VisualInput

#: Arguments that are looped over, outermost first, with their defaults.
CATEGORIES: dict[str, Any] = {
    "precision": "fp16",
    "method": None,
    "keep": None,
    "layer": None,
    "execution": "fused",
    "calibration": None,
    "attention": "flash",
    "logits": "last",
    "vision_layers": "executed",
    "image_size": None,
    "frames": None,
}
#: Arguments that are arrays, outermost first, with their defaults.
NUMBERS: dict[str, Any] = {
    "visual_tokens": None,
    "text_tokens": 40,
    "batch_size": 1,
    "output_tokens": 0,
}
#: Scenarios priced at a time: the arrays of one chunk stay in the processor's cache.
CHUNK_ROWS = 1 << 14

_COSTS = (
    "flops",
    "executed_flops",
    "weight_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "activation_read_bytes",
    "activation_write_bytes",
    "hbm_bytes",
    "kernels",
    "time_s",
    "time_low_s",
    "time_high_s",
)
_MEMORY = (
    "kv_cache_bytes",
    "peak_activation_bytes",
    "peak_memory_bytes",
    "fits",
    "activation_bytes_written",
)
#: Columns every row has; `stage_columns=True` adds `<stage>_<cost>` for each stage.
COLUMNS = (*_COSTS, "ttft_s", "tpot_s", "bound", "model_weight_bytes", *_MEMORY)


class Chunk(NamedTuple):
    """A piece of a sweep: `fixed` values that hold for all its rows, and `columns` of arrays.

    Columns named `bound` hold indices into `costmodel.roofline.BOUNDS`, -1 for an empty stage.
    """

    fixed: dict[str, Any]
    columns: dict[str, Any]
    rows: int


def _as_list(name: str, value: Any) -> list[Any]:
    """Return the values of one argument; pairs are image sizes, strings and mappings are one."""
    if name == "image_size" and isinstance(value, tuple):
        return [value]
    if isinstance(value, np.ndarray):
        return list(value.tolist())
    if isinstance(value, (list, tuple, range)) and not hasattr(value, "_fields"):
        values = list(value)
        if not values:
            raise InvalidInputError(f"{name} is an empty list; give at least one value")
        return values
    return [value]


def _numbers(name: str, values: Sequence[Any], least: int) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = np.asarray(["?"])
    if array.dtype.kind not in "iu" or np.any(array < least) or np.any(array > MOST_TOKENS):
        raise InvalidInputError(
            f"{name} must be whole numbers from {least} to {MOST_TOKENS}, not {list(values)[:8]!r}"
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
        known = {**CATEGORIES, **NUMBERS}
        for name in arguments:
            if name == "convention":
                raise InvalidInputError(
                    "sweep counts by the 'torch' convention; for others call estimate, or "
                    "`vlm-roofline reproduce`"
                )
            if name not in known:
                raise UnknownNameError(name, known)
        values = {name: _as_list(name, arguments.get(name, known[name])) for name in known}
        self.categories = {
            "model": _as_list("model", model),
            "hardware": _as_list("hardware", hardware),
            **{name: values[name] for name in CATEGORIES},
        }
        visual = values["visual_tokens"]
        if any(value is None for value in visual) and visual != [None]:
            raise InvalidInputError("visual_tokens mixes None with numbers; give one or the other")
        self.default_visual = visual == [None]
        self.numbers = {
            "visual_tokens": (
                np.zeros(1) if self.default_visual else _numbers("visual_tokens", visual, 0)
            ),
            "text_tokens": _numbers("text_tokens", values["text_tokens"], 0),
            "batch_size": _numbers("batch_size", values["batch_size"], 1),
            "output_tokens": _numbers("output_tokens", values["output_tokens"], 0),
        }
        self.shape = tuple(len(array) for array in self.numbers.values())
        self.inner_rows = prod(self.shape)
        self.rows = self.inner_rows * prod(len(v) for v in self.categories.values())

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
        for values in product(*self.categories.values()):
            arguments = dict(zip(self.categories, values, strict=True))
            image_size, frames = arguments.pop("image_size"), arguments.pop("frames")
            try:
                context, fixed = _context(**arguments)
                units = _units(context, image_size, frames)
            except VlmRooflineError as error:
                if errors == "raise":
                    raise
                yield from self._failed(arguments, error, chunk_rows)
                continue
            fixed = {**fixed, "image_size": image_size, "frames": frames}
            for start in range(0, self.inner_rows, chunk_rows):
                stop = min(start + chunk_rows, self.inner_rows)
                scenario = self._scenario(start, stop, units)
                yield _price(context, fixed, scenario, stop - start, stage_columns)

    def _scenario(
        self, start: int, stop: int, units: tuple[VisualInput, VisualInput] | None
    ) -> Scenario:
        index = np.unravel_index(np.arange(start, stop), self.shape)
        columns = {
            name: array[where]
            for (name, array), where in zip(self.numbers.items(), index, strict=True)
        }
        visual = columns["visual_tokens"]
        projected = crops = np.zeros_like(visual)
        if units is not None:
            given, whole = units
            if self.default_visual:
                visual = np.full_like(visual, given.tokens)
            one = visual <= given.tokens
            images = np.where(one, visual > 0, np.ceil(visual / whole.tokens))
            projected = images * np.where(one, given.projected_tokens, whole.projected_tokens)
            crops = images * np.where(one, given.crops, whole.crops)
        if np.any(visual + columns["text_tokens"] == 0):
            raise InvalidInputError("visual_tokens and text_tokens are both 0: there is no prompt")
        return Scenario(
            visual,
            projected,
            crops,
            columns["text_tokens"],
            columns["batch_size"],
            columns["output_tokens"],
        )

    def _failed(
        self, arguments: Mapping[str, Any], error: VlmRooflineError, chunk_rows: int
    ) -> Iterator[Chunk]:
        fixed = {name: _label(value) for name, value in arguments.items()}
        fixed["error"] = " ".join(str(error).split())
        for start in range(0, self.inner_rows, chunk_rows):
            stop = min(start + chunk_rows, self.inner_rows)
            index = np.unravel_index(np.arange(start, stop), self.shape)
            columns = {
                name: array[where].astype(np.int64)
                for (name, array), where in zip(self.numbers.items(), index, strict=True)
            }
            yield Chunk(fixed, columns, stop - start)


def _label(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def _units(
    context: Context, image_size: tuple[int, int] | None, frames: int | None
) -> tuple[VisualInput, VisualInput] | None:
    if context.model.vision is None:
        return None
    return visual_units(context.model, image_size, frames)


def _price(
    context: Context, fixed: dict[str, Any], scenario: Scenario, rows: int, stage_columns: bool
) -> Chunk:
    evaluation = context.evaluate(scenario, vector=True)
    columns: dict[str, Any] = {
        "visual_tokens": scenario.visual_tokens.astype(np.int64),
        "text_tokens": scenario.text_tokens.astype(np.int64),
        "batch_size": scenario.batch_size.astype(np.int64),
        "output_tokens": scenario.output_tokens.astype(np.int64),
        "crops": scenario.crops.astype(np.int64),
        **_total_columns(evaluation, scenario),
    }
    if stage_columns:
        for stage in STAGES:
            for name in _COSTS:
                columns[f"{stage}_{name}"] = getattr(evaluation.stages[stage], name)
            columns[f"{stage}_bound"] = evaluation.stages[stage].bound_code
    return Chunk(
        fixed, {name: np.broadcast_to(column, (rows,)) for name, column in columns.items()}, rows
    )


def _total_columns(evaluation: Evaluation, scenario: Scenario) -> dict[str, Any]:
    """Return the columns of `COLUMNS`."""
    total = evaluation.stages["prefill"]
    for name, cost in evaluation.stages.items():
        if name != "prefill" and np.any(cost.kernels):
            total = total + cost
    decode = evaluation.stages["decode"].time_s
    steps = scenario.output_tokens
    memory = evaluation.memory
    return {
        **{name: getattr(total, name) for name in _COSTS},
        "ttft_s": total.time_s - decode,
        "tpot_s": np.where(steps > 0, decode / np.maximum(steps, 1), np.nan),
        "bound": total.bound_code,
        "model_weight_bytes": memory.weight_bytes,
        **{name: getattr(memory, name) for name in _MEMORY},
    }


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
        model: as `estimate`, or a list.
        hardware: as `estimate`, or a list.
        stage_columns: whether to add `<stage>_<cost>` columns.
        errors: `raise`, or `keep` to yield combinations that cannot be priced as empty rows with
            their reason in the column `error`.
        arguments: any other argument of `estimate` (but `convention`), a value or a list each.

    Raises:
        VlmRooflineError: a bad argument.

    >>> table = sweep("llava-1.5-7b", ["nvidia-t4", "nvidia-l4"], batch_size=[1, 8])
    >>> len(table), list(table.columns[:4])
    (4, ['model', 'hardware', 'precision', 'method'])
    """
    return join_chunks(
        list(sweep_chunks(model, hardware, stage_columns=stage_columns, errors=errors, **arguments))
    )


def join_chunks(chunks: Sequence[Chunk]) -> pd.DataFrame:
    """Return pieces of a sweep as one DataFrame, the fixed values first.

    Columns of names are categorical: a million rows repeat a handful of them.

    Args:
        chunks: the pieces, in their order; at least one.
    """
    import pandas as pd

    rows = [chunk.rows for chunk in chunks]
    columns: dict[str, Any] = {}
    for name in _in_order(chunk.fixed for chunk in chunks):
        values = [_label(chunk.fixed.get(name)) for chunk in chunks]
        if all(value is None or isinstance(value, (int, float)) for value in values):
            numbers = [np.nan if value is None else value for value in values]
            columns[name] = np.repeat(np.asarray(numbers), rows)
        else:
            columns[name] = _categorical(values, rows)
    for name in _in_order(chunk.columns for chunk in chunks):
        parts = [chunk.columns.get(name) for chunk in chunks]
        if name.endswith("bound"):
            codes = [
                np.full(n, -1) if part is None else part
                for part, n in zip(parts, rows, strict=True)
            ]
            columns[name] = _coded(np.concatenate(codes), BOUNDS)
            continue
        filled = [
            np.full(n, np.nan) if part is None else part
            for part, n in zip(parts, rows, strict=True)
        ]
        columns[name] = np.concatenate(filled)
    return pd.DataFrame(columns, copy=False)


def _in_order(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all mappings, each once, in the order they appear."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _coded(codes: Any, names: Sequence[str]) -> Any:
    import pandas as pd

    categories: Any = list(names)
    return pd.Categorical.from_codes(codes, categories)


def _categorical(values: list[Any], rows: list[int]) -> Any:
    names = list(dict.fromkeys(str(value) for value in values if value is not None))
    codes = [-1 if value is None else names.index(str(value)) for value in values]
    return _coded(np.repeat(codes, rows), names)
