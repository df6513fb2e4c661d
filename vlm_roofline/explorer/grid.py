"""The grid behind the explorer: every point priced by `estimate`, what points share stored once.

A stage costs the same at many points (the tower does not see the text, prefill not the output), so a point
names its stages by number: a block is a stage's cost with its ops. Numbers are kept to `DIGITS` significant
digits; between the points of the grid there is nothing.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from costmodel.energy import datasheet_power, estimate_energy
from costmodel.estimates import answer
from costmodel.evaluate import Context
from costmodel.models import load_model
from costmodel.models.model import write_size
from costmodel.quantities import STAGES
from costmodel.request import Request
from costmodel.request import plain as plain_value
from costmodel.result import op_rows
from costmodel.scenario import scenario_of
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError, UnknownNameError, VlmRooflineError
from hardware_specs.showing import one_line
from profiling.records.model_names import public_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costmodel.models import ModelConfig
    from costmodel.models.model import ImageSize
    from costmodel.result import Estimate
    from hardware_specs import HardwareSpec

#: Significant digits of every number in the page.
DIGITS = 5
#: Visual-token counts of a curve over visual tokens, at most.
CURVE_POINTS = 64

_STAGE_COLUMNS = (
    "flops", "hbm_bytes", "kernels", "time_s", "time_low_s", "time_high_s", "ideal_time_s", "bound",
)  # fmt: skip
_OP_COLUMNS = (
    "name", "op_class", "dtype", "count", "flops", "executed_flops", "hbm_bytes", "bound",
    "time_s", "sol_percent", "provenance",
)  # fmt: skip
_MEMORY_COLUMNS = (
    "weight_bytes", "kv_cache_bytes", "peak_activation_bytes", "peak_memory_bytes", "fits",
)  # fmt: skip
_ENERGY_COLUMNS = ("energy_low_j", "energy_j", "energy_high_j")
_TOTAL_COLUMNS = (
    "time_s", "time_low_s", "time_high_s", "ideal_time_s", "flops", "ttft_s", "tpot_s",
)  # fmt: skip


@dataclass(frozen=True)
class Axes:
    """What the explorer offers to choose from, the same for every model and device.

    Attributes:
        precision: names of precisions; those that a device lacks are left out there.
        method: names of methods; those that do not fit a model are left out there.
        keep: what they keep.
        batch_size: samples.
        text_tokens: text tokens per sample.
        output_tokens: decode steps.
        image_size: sizes in pixels, where a model's tokens depend on them.
    """

    precision: Sequence[str] = ("auto", "int4", "fp8")
    method: Sequence[str] = ("fastv", "divprune", "visionzip", "pyramiddrop")
    keep: Sequence[int | float] = (0.5, 0.25, 0.1)
    batch_size: Sequence[int] = (1, 8)
    text_tokens: Sequence[int] = (40, 512)
    output_tokens: Sequence[int] = (32, 256)
    image_size: Sequence[ImageSize | str] = ((448, 448), (896, 896), (1344, 1344))

    @property
    def settings(self) -> tuple[tuple[str | None, int | float | None], ...]:
        """Every method with everything it may keep, behind the unreduced model."""
        reduced = [name for name in self.method if name != "none"]
        return ((None, None), *product(reduced, self.keep))


def digits(value: Any) -> Any:
    """Return a number to `DIGITS` significant digits; everything else as it is.

    >>> digits(0.0173051015), digits(8583722926080), digits(None), digits("compute")
    (0.017305, 8583700000000, None, 'compute')
    """
    if isinstance(value, (bool, str)) or value is None:
        return value
    near = float(f"{value:.{DIGITS}g}")
    return int(near) if near.is_integer() else near


class _Table:
    """Rows of equal columns, each row held once; JSON holds it column by column."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in columns}
        self._known: dict[Any, int] = {}

    def add(self, *row: Any) -> int:
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        return len(column) - 1

    def find(self, key: Any) -> int | None:
        return self._known.get(key)

    def keep(self, key: Any, *row: Any) -> int:
        """Return the number of the row of this key, added at first sight."""
        if key not in self._known:
            self._known[key] = self.add(*row)
        return self._known[key]


@dataclass
class _Pair:
    """The grid of one model on one device, as it grows."""

    model: ModelConfig
    hardware: HardwareSpec
    fixed: Mapping[str, Any]
    blocks: _Table = field(default_factory=lambda: _Table((*_STAGE_COLUMNS, "first_op", "ops")))
    ops: _Table = field(default_factory=lambda: _Table(_OP_COLUMNS))
    words: _Table = field(default_factory=lambda: _Table(("text",)))
    schedules: _Table = field(default_factory=lambda: _Table(("layers", "mean")))
    left_out: dict[str, list[str]] = field(default_factory=dict)
    points: _Table = field(default_factory=lambda: _Table((
        *STAGES, *_TOTAL_COLUMNS, "ttft_low_s", "ttft_high_s", *_MEMORY_COLUMNS, *_ENERGY_COLUMNS,
        "visual_tokens", "schedule", "refused",
    )))  # fmt: skip

    def request(self, **arguments: Any) -> Request:
        """Return a request on this model and device."""
        return Request(self.model, self.hardware, **{**self.fixed, **arguments})

    def word(self, text: str | None) -> int | None:
        """Return the number of a text that many rows share."""
        return None if text is None else self.words.keep(text, text)

    def point(self, context: Context, request: Request, first: Estimate) -> None:
        """Add a point; `first` is the same request without a decode step."""
        cost = answer(request, context)
        scenario = scenario_of(request, context.model, [])
        ops = context.stage_ops(scenario, context.method_plan(scenario))
        energy = estimate_energy(cost, datasheet_power(self.hardware)).totals
        layers = cost.visual_tokens_by_layer
        self.points.add(
            *(self._block(stage, cost.stages[stage], ops[stage], context) for stage in STAGES),
            *(digits(getattr(cost.totals, name)) for name in _TOTAL_COLUMNS),
            digits(first.totals.time_low_s),
            digits(first.totals.time_high_s),
            *(digits(getattr(cost.memory, name)) for name in _MEMORY_COLUMNS),
            *(digits(getattr(energy, name)) for name in _ENERGY_COLUMNS),
            cost.inputs["visual_tokens"],
            self.schedules.keep(layers, layers, digits(cost.mean_visual_tokens)),
            None,
        )

    def refuse(self, error: VlmRooflineError, points: int) -> None:
        """Add points that have no price, with the reason."""
        row = dict.fromkeys(self.points.columns) | {"refused": self.word(one_line(error))}
        for _ in range(points):
            self.points.add(*row.values())

    def leave_out(self, what: str, error: VlmRooflineError) -> None:
        """Remember what is not offered, by the reason; a name that nothing bears is a slip, and raised."""
        if isinstance(error, UnknownNameError):
            raise error
        self.left_out.setdefault(one_line(error), []).append(what)

    def _block(self, stage: str, cost: Any, ops: list[Any], context: Context) -> int:
        key = (stage, context.precision.name, tuple(ops))
        found = self.blocks.find(key)
        if found is not None:
            return found
        rows = op_rows({stage: ops}, context.roofline)
        first = len(self.ops.columns["name"])
        for row in rows:
            self.ops.add(
                *(
                    self.word(value) if isinstance(value, str) else digits(value)
                    for value in (getattr(row, name) for name in _OP_COLUMNS)
                )
            )
        return self.blocks.keep(
            key, *(digits(getattr(cost, name)) for name in _STAGE_COLUMNS), first, len(rows)
        )


def price(model: Any, hardware: Any, axes: Axes, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the grid of one model on one device as a JSON document.

    Args:
        model: as `costmodel.estimate`.
        hardware: likewise.
        axes: what there is to choose from.
        fixed: other arguments of `costmodel.estimate`, the same everywhere.

    Raises:
        VlmRooflineError: an unknown name, or no point of the grid has a price; says the first reason.
    """
    pair = _Pair(load_model(model), get_hardware(hardware), fixed)
    images = _images(pair, axes)
    plain = _precisions(pair, axes)
    settings = _settings(pair, axes, next(iter(plain)))
    for precision, setting in product(plain, settings):
        _price_setting(pair, axes, images, precision, setting)
    if None not in pair.points.columns["refused"]:
        reason = pair.words.columns["text"][0]
        raise InvalidInputError(f"no configuration of {pair.model.name} has a price: {reason}")
    first = next(iter(plain.values()))
    return {
        "model": public_name(pair.model.name),
        "command": shlex.join(
            ["vlm-roofline", "estimate", str(plain_value(model)), "-d", str(plain_value(hardware))]
        ),
        "hardware": pair.hardware.id,
        "hardware_name": pair.hardware.name,
        "capacity_bytes": digits(pair.hardware.usable_memory_bytes),
        "bandwidth_bytes_per_s": digits(pair.hardware.bandwidth_bytes_per_s),
        "peaks_flop_per_s": _peaks(pair, plain),
        "calibration": "none" if first.calibration is None else str(first.calibration.name),
        "axes": {
            "precision": list(plain),
            # As text, since 1 is one token and 1.0 all of them.
            "setting": [[name, None if keep is None else str(keep)] for name, keep in settings],
            "image_size": [None if image is None else write_size(image) for image in images],
            "batch_size": list(axes.batch_size),
            "text_tokens": list(axes.text_tokens),
            "output_tokens": list(axes.output_tokens),
        },
        "left_out": [[", ".join(what), why] for why, what in pair.left_out.items()],
        "points": pair.points.columns,
        "blocks": pair.blocks.columns,
        "ops": pair.ops.columns,
        "words": pair.words.columns["text"],
        "schedules": pair.schedules.columns,
        "curves": _curves(pair, plain, axes),
    }


def _price_setting(
    pair: _Pair,
    axes: Axes,
    images: Sequence[Any],
    precision: str,
    setting: tuple[str | None, int | float | None],
) -> None:
    """Add the points of one method and what it keeps, at one precision."""
    method, keep = setting
    chosen = {"precision": precision, "method": method, "keep": keep}
    numbers = product(images, axes.batch_size, axes.text_tokens)
    try:
        context = Context(pair.request(**chosen))
    except VlmRooflineError as error:
        for _ in numbers:
            pair.refuse(error, len(axes.output_tokens))
        return
    for image, batch, text in numbers:
        shared = chosen | {"image_size": image, "batch_size": batch, "text_tokens": text}
        try:
            first = answer(pair.request(**shared), context)
        except VlmRooflineError as error:
            pair.refuse(error, len(axes.output_tokens))
            continue
        for output in axes.output_tokens:
            pair.point(context, pair.request(**shared, output_tokens=output), first)


def _images(pair: _Pair, axes: Axes) -> list[Any]:
    """Return the image sizes that make a difference to the model, or None alone."""
    found: dict[Any, Any] = {}
    if pair.model.vision is None:
        return [None]
    for image in axes.image_size:
        try:
            cost = answer(pair.request(image_size=image))
        except VlmRooflineError as error:
            pair.leave_out(f"images of {write_size(image)}", error)
            continue
        key = (cost.inputs["visual_tokens"], cost.inputs["crops"], cost.stages["vision"].flops)
        found.setdefault(key, image)
    return list(found.values()) if len(found) > 1 else [None]


def _precisions(pair: _Pair, axes: Axes) -> dict[str, Context]:
    """Return what prices the unreduced model at each precision that the device has."""
    found: dict[str, Context] = {}
    refused: VlmRooflineError | None = None
    for name in axes.precision:
        try:
            context = Context(pair.request(precision=name))
            answer(pair.request(precision=name), context)
        except VlmRooflineError as error:
            pair.leave_out(name, error)
            refused = error
            continue
        found.setdefault(context.precision.name, context)
    if found:
        return found
    raise refused or InvalidInputError("the explorer needs at least one precision")


def _settings(
    pair: _Pair, axes: Axes, precision: str
) -> list[tuple[str | None, int | float | None]]:
    """Return the methods, with what they keep, that fit the model."""
    fit = []
    for method, keep in axes.settings:
        try:
            answer(pair.request(precision=precision, method=method, keep=keep))
        except VlmRooflineError as error:
            pair.leave_out(f"{method} keep {keep}", error)
        else:
            fit.append((method, keep))
    return fit


def _peaks(pair: _Pair, contexts: Mapping[str, Context]) -> dict[str, float]:
    """Return the peak of every arithmetic that an op of the grid runs in, FLOP/s."""
    words = pair.words.columns["text"]
    numbers = {number for number in pair.ops.columns["dtype"] if number is not None}
    roofline = next(iter(contexts.values())).roofline
    peaks = {}
    for dtype in sorted(words[number] for number in numbers):
        with suppress(VlmRooflineError):
            peaks[dtype] = digits(roofline.peak(dtype))
    return peaks


def _curves(pair: _Pair, contexts: Mapping[str, Context], axes: Axes) -> dict[str, Any]:
    """Return the time to the first token over visual tokens, by precision, batch and text."""
    most = max(count or 0 for count in pair.points.columns["visual_tokens"])
    step = max(1, -(-most // CURVE_POINTS))
    # Without text, a prompt without a visual token is none.
    counts = list(range(0 if all(axes.text_tokens) else step, most + 1, step)) if most else []
    columns = ("ttft_s", "time_low_s", "time_high_s", "ideal_time_s")
    curves: dict[str, list[Any]] = {name: [] for name in columns}
    for precision, batch, text in product(contexts, axes.batch_size, axes.text_tokens):
        for count in counts:
            request = pair.request(
                precision=precision, batch_size=batch, text_tokens=text, visual_tokens=count
            )
            totals = answer(request, contexts[precision]).totals
            for name in columns:
                curves[name].append(digits(getattr(totals, name)))
    return {"visual_tokens": counts, **curves}
