"""`compare`: what token reduction saves on each device, against the same request without it.

>>> answer = compare("llava-1.5-7b", "nvidia-l4", methods=["fastv"], keep=64, output_tokens=16)
>>> [(row.method, round(row.ratios["ttft"].value, 2)) for row in answer.rows]
[('none', 1.0), ('fastv', 0.39)]
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from costmodel.energy import estimate_energy
from costmodel.estimates import answer, context_for
from costmodel.questions.reasons import why_it_does_not_pay
from costmodel.questions.sweep_plan import unreduced
from costmodel.ratios import Ratio, ratio_interval
from costmodel.request import ARGUMENTS, Request, check_names, plain
from costmodel.written_tables import WrittenTable
from hardware_specs.errors import InvalidInputError, VlmRooflineError
from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from costmodel.energy import PowerModel
    from costmodel.result import Estimate

SCHEMA_VERSION = 1
#: What has a ratio, in the order of the document.
COMPARED = ("ttft", "tpot", "total", "peak_memory", "energy")


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One method on one device, beside the same request without a method.

    Attributes:
        hardware: the device's id.
        method: the method with its settings; `none` is the unreduced run.
        keep: what it keeps; None for its default.
        ttft_s: time to the first token, seconds.
        tpot_s: mean time per decoded token; None without decode steps.
        total_s: vision tower to last token.
        peak_memory_bytes: peak memory.
        fits: whether it fits the device; None where the capacity is unknown.
        energy_j: predicted energy; None without measured powers.
        mean_visual_tokens: visual tokens per layer of the language model, on average.
        ratios: `ttft`, `tpot`, `total`, `peak_memory` and `energy` to the unreduced run; None where
            one of both is not known.
        at_most: how many times faster the whole request is without a single visual token in the
            language model, chosen at no cost: vision tower, text and decode of text stay.
        why: why the method saves little; None where it saves.
        warnings: what its estimate warns of.
    """

    hardware: str
    method: str
    keep: int | float | None
    ttft_s: float
    tpot_s: float | None
    total_s: float
    peak_memory_bytes: float
    fits: bool | None
    energy_j: float | None
    mean_visual_tokens: float | None
    ratios: dict[str, Ratio | None]
    at_most: float
    why: str | None
    warnings: tuple[str, ...] = ()

    __repr__ = brief

    @property
    def named(self) -> str:
        """The method with what it keeps, such as `fastv 64`."""
        return _named(self.method, self.keep)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as it stands in the JSON document."""
        ratios = {
            name: None if ratio is None else ratio._asdict() for name, ratio in self.ratios.items()
        }
        return {
            **{name: getattr(self, name) for name in self.__slots__ if name != "warnings"},
            "ratios": ratios,
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """A method that cannot be priced on a device, with the reason."""

    hardware: str
    method: str
    keep: int | float | None
    reason: str

    @property
    def named(self) -> str:
        """The method with what it was to keep."""
        return _named(self.method, self.keep)


def _named(method: str, keep: int | float | None) -> str:
    return method if keep is None else f"{method} {keep}"


@dataclass(frozen=True)
class Comparison:
    """Methods beside the unreduced run, device by device.

    Attributes:
        model: the model's name.
        rows: the unreduced run of each device and the methods after it.
        refused: what could not be priced.
        inputs: the arguments that all rows share.
    """

    model: str
    rows: tuple[ComparisonRow, ...]
    refused: tuple[Refused, ...]
    inputs: dict[str, Any]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What all estimates of a device warn of, one sentence each."""
        told = dict.fromkeys(text for row in self.rows for text in row.warnings)
        devices = [
            [row for row in self.rows if row.hardware == device]
            for device in dict.fromkeys(row.hardware for row in self.rows)
        ]
        return tuple(
            text
            for text in told
            if any(all(text in row.warnings for row in rows) for rows in devices)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `--json`, `schema_version` 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "inputs": dict(self.inputs),
            "rows": [row.to_dict() for row in self.rows],
            "refused": [asdict(row) for row in self.refused],
            "warnings": list(self.warnings),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per device and method, ratios as columns `<name>_ratio`, `_low`, `_high`."""
        import pandas as pd

        flat = []
        for row in self.rows:
            cells = row.to_dict()
            ratios = cells.pop("ratios")
            why = cells.pop("why")
            for name in COMPARED:
                found = ratios[name] or dict.fromkeys(Ratio._fields)
                cells |= {
                    f"{name}_{key if key != 'value' else 'ratio'}": found[key] for key in found
                }
            flat.append({**cells, "why": why})
        return pd.DataFrame(flat)

    def table(self) -> WrittenTable:
        """Return the table for documents: Markdown, LaTeX, CSV, HTML."""
        title = (
            f"{self.model}, batch {self.inputs['batch_size']}, {self.inputs['output_tokens']} output "
            "tokens; ratios to the unreduced run with their intervals"
        )
        headings = (
            "device", "method", "keep", "visual tokens", "TTFT ms", "ratio", "TPOT ms", "ratio",
            "total ms", "ratio", "memory GB", "ratio", "fits", "at most",
        )  # fmt: skip
        return WrittenTable(title, headings, tuple(map(_cells, self.rows)))

    def to_csv(self) -> str:
        """Return every number as CSV."""
        return self.to_frame().to_csv(index=False)

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        return self.table().markdown()

    def to_latex(self) -> str:
        r"""Return a LaTeX table for `\usepackage{booktabs}`."""
        return self.table().latex()

    def _repr_html_(self) -> str:
        return self.table().html()

    def __str__(self) -> str:
        """Return the table, and why what saves little does."""
        return "\n".join([self.table().text(), *(f"{what}: {why}" for what, why in reasons(self))])

    def __repr__(self) -> str:
        """Say what was compared."""
        devices = dict.fromkeys(row.hardware for row in self.rows)
        methods = dict.fromkeys(row.method for row in self.rows)
        return f"Comparison({self.model}: {', '.join(methods)} on {', '.join(devices)})"


def ratio_text(ratio: Ratio | None) -> str:
    """Write a ratio with its interval, which is left out where it has no width.

    >>> ratio_text(Ratio(0.5, 0.4, 0.61)), ratio_text(Ratio(1.0, 1.0, 1.0)), ratio_text(None)
    ('0.50 (0.40-0.61)', '1.00', '-')
    """
    if ratio is None:
        return "-"
    value, low, high = (f"{number:.2f}" for number in ratio)
    return value if low == high else f"{value} ({low}-{high})"


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    ratios = row.ratios
    tokens = row.mean_visual_tokens
    return (
        row.hardware,
        row.method,
        "" if row.keep is None else str(row.keep),
        "" if tokens is None else f"{tokens:.5g}",
        f"{row.ttft_s * 1e3:.2f}",
        ratio_text(ratios["ttft"]),
        "" if row.tpot_s is None else f"{row.tpot_s * 1e3:.2f}",
        ratio_text(ratios["tpot"]),
        f"{row.total_s * 1e3:.2f}",
        ratio_text(ratios["total"]),
        f"{row.peak_memory_bytes / 1e9:.2f}",
        ratio_text(ratios["peak_memory"]),
        {True: "yes", False: "no", None: "?"}[row.fits],
        f"{row.at_most:.2f}",
    )


def compare(
    model: Any,
    hardware: Any,
    *,
    methods: Any,
    keep: Any = None,
    power: PowerModel | None = None,
    **arguments: Any,
) -> Comparison:
    """Say what methods save on each device, against the same request without one.

    A ratio is method over unreduced, so below 1 saves. Its interval holds that both runs are wrong in
    the same ways, see `costmodel.ratios`.

    Args:
        model: a model in any form that `estimate` takes.
        hardware: a device in any form that `estimate` takes, or a list of them.
        methods: a method, or a list of them; the unreduced run always comes first.
        keep: what they keep, or a list of it: each method is priced at each.
        power: measured powers of the device, for its energy.
        arguments: any other argument of `estimate` but `convention` and `tokens_per_layer`.

    Raises:
        VlmRooflineError: a bad argument, or no method that can be priced.

    >>> compare("llava-1.5-7b", ["l4", "h100"], methods="divprune", keep=[64, 128])
    Comparison(llava-1.5-7b: none, divprune on nvidia-l4, nvidia-h100-sxm5-80gb)
    """
    check_names(arguments, "method", "convention", "tokens_per_layer", by="compare")
    reduced = [method for method in _listed(methods) if not unreduced(method)]
    for name, values in {"method": reduced, "keep": _listed(keep)}.items():
        for each in values:
            if each is not None:
                ARGUMENTS[name].kind.check(name, each)
    asked = dict.fromkeys((method, each) for method in reduced for each in _listed(keep))
    rows: list[ComparisonRow] = []
    refused: list[Refused] = []
    refusal: VlmRooflineError | None = None
    model_name, inputs = "", {}
    devices = _listed(hardware)
    if not _listed(methods):
        raise InvalidInputError("compare needs a method; see `vlm-roofline methods list`")
    if not _listed(keep):
        raise InvalidInputError("keep is an empty list; give at least one value, or leave it out")
    if not devices:
        raise InvalidInputError("compare needs a device; see `vlm-roofline specs list`")
    for device in devices:
        request = Request(model, device, **arguments)
        before = _Unreduced(replace(request, layer=None), power)
        rows.append(before.row(before.cost, "none", None, "none"))
        given = before.cost.inputs
        model_name, inputs = given["model"], {
            name: given[name] for name in given if name not in ("hardware", "method", "keep", "layer")
        }  # fmt: skip
        for method, each in asked:
            try:
                changed = replace(request, method=method, keep=each)
                context = context_for(changed)
                cost = answer(changed)
            except VlmRooflineError as error:
                refusal = error
                refused.append(
                    Refused(str(given["hardware"]), str(plain(method)), each, str(error))
                )
                continue
            chosen = context.method
            place = "none" if chosen is None else chosen.place
            label = "none" if chosen is None else chosen.label
            rows.append(before.row(cost, label, each, place))
    if refusal is not None and len(rows) == len(devices):
        raise refusal
    return Comparison(model_name, tuple(rows), tuple(refused), inputs)


class _Unreduced:
    """A request without a method, and how fast it could be at most."""

    def __init__(self, request: Request, power: PowerModel | None) -> None:
        self.cost = answer(request)
        self._power = power
        self._energy = self._joules(self.cost)
        layers = context_for(request).model.text.num_layers
        left = 0 if self.cost.inputs["text_tokens"] else 1
        schedule = (left * bool(self.cost.inputs["visual_tokens"]),) * layers
        self._floor = answer(replace(request, tokens_per_layer=schedule))

    def row(self, cost: Estimate, method: str, keep: Any, place: str) -> ComparisonRow:
        """Return the row of a run beside this one."""
        base, floor_s = self.cost, float(self._floor.totals.time_s)
        if place in ("vision-layers", "before-vision"):
            floor_s -= float(self._floor.stages["vision"].time_s)
        energy = self._joules(cost)
        memory = float(cost.memory.peak_memory_bytes / base.memory.peak_memory_bytes)
        ratios: dict[str, Ratio | None] = {
            "ttft": ratio_interval(cost, base, "ttft_s"),
            "tpot": ratio_interval(cost, base, "tpot_s") if base.totals.tpot_s else None,
            "total": ratio_interval(cost, base),
            "peak_memory": Ratio(memory, memory, memory),
            "energy": None,
        }
        total = ratios["total"]
        if energy and self._energy and total is not None:
            # Powers cancel; what is left is as uncertain as the times.
            scale = float(energy / self._energy) / total.value
            low, high = float(total.low), float(total.high)
            ratios["energy"] = Ratio(scale * total.value, scale * low, scale * high)
        return ComparisonRow(
            str(cost.inputs["hardware"]),
            method,
            plain(keep),
            float(cost.totals.ttft_s),
            None if cost.totals.tpot_s is None else float(cost.totals.tpot_s),
            float(cost.totals.time_s),
            float(cost.memory.peak_memory_bytes),
            None if cost.memory.fits is None else bool(cost.memory.fits),
            energy,
            cost.mean_visual_tokens,
            ratios,
            float(base.totals.time_s) / floor_s,
            None if cost is base else why_it_does_not_pay(cost, base),
            cost.warnings,
        )

    def _joules(self, cost: Estimate) -> float | None:
        return None if self._power is None else estimate_energy(cost, self._power).totals.energy_j


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, range)) else [value]


def reasons(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Yield (methods on device, reason) of rows that do not pay and of those that were refused."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in comparison.rows:
        if row.why:
            said.setdefault((row.hardware, row.why), []).append(row.named)
    for one in comparison.refused:
        said.setdefault((one.hardware, f"not priced: {one.reason}"), []).append(one.named)
    for (device, why), names in said.items():
        yield f"{', '.join(dict.fromkeys(names))} on {device}", why
