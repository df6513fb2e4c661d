"""How `specs list`, `specs show` and `specs detect` look on a terminal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rich.text import Text

from hardware_specs.errors import InvalidInputError
from hardware_specs.sources import explain_evidence, is_weak, list_sources
from vlm_roofline.cli.tables import Column, columns, table
from vlm_roofline.cli.units import show_scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

    from hardware_specs import Disagreement, HardwareSpec, MeasuredRate, Provenance

_WEAK = "yellow"
_PAIR = [Column("", 0), Column("", 1)]

#: Column heading -> the paths it shows, best first, and how any but the first is marked.
_PEAK_COLUMNS = {
    "fp16": ("fp16", (("matrix", ""), ("vector", " v"))),
    "bf16": ("bf16", (("matrix", ""), ("vector", " v"))),
    "fp8": ("fp8", (("matrix", ""),)),
    "int8": ("int8", (("matrix", ""), ("dp4a", " dp4a"))),
    "fp32": ("fp32", (("matrix", " m"), ("vector", ""))),
}


def list_table(specs: Sequence[HardwareSpec]) -> RenderableType:
    """Return one row per device: memory, bandwidth, main peaks, power."""
    shown = [
        Column("id", "id", whole=True),
        Column("architecture", "architecture", priority=1),
        Column("memory", lambda s: show_scaled(s.memory_bytes, 2**30, "GiB"), "1"),
        Column("GB/s", _bandwidth, "1"),
        *(Column(dtype, partial(_peak_cell, column=dtype), "1") for dtype in _PEAK_COLUMNS),
        Column("W", _power, "1"),
    ]
    title = f"{len(specs)} devices; peaks dense, in Top/s (1 FMA = 2 op)"
    return table(specs, shown, title=title)


def _bandwidth(spec: HardwareSpec) -> Text:
    return _marked(show_scaled(spec.bandwidth_bytes_per_s, 1e9, ""), spec.provenance.get("memory"))


def _power(spec: HardwareSpec) -> Text:
    return _marked(show_scaled(spec.tdp_w, 1, ""), spec.provenance.get("tdp_w"))


def mark_legend() -> Text:
    """Return the line that explains the marks of `list_table`."""
    text = Text()
    text.append("(M) quoted from memory, (3) third parties only: check both", style=_WEAK)
    text.append("; v vector units, m matrix units, dp4a dot product of vector units; ")
    text.append("empty: no such path or no figure")
    return text


def spec_view(
    spec: HardwareSpec, disagreements: Sequence[Disagreement]
) -> Iterator[RenderableType]:
    """Yield the parts of `specs show`: numbers, peaks, links, documents, notes."""
    yield Text(f"{spec.id}: {spec.name}", style="bold")
    yield _facts(spec)
    yield _peaks(spec)
    if (node := _node(spec)) is not None:
        yield Text(node)
    if spec.unsupported:
        said = (f"{key} ({why})" if why else key for key, why in spec.unsupported.items())
        yield Text(f"not supported: {', '.join(said)}")
    if spec.measured:
        yield _measured(spec)
    if documents := _documents(spec):
        yield table(documents, _PAIR, title="documents")
    yield _codes(spec)
    for note in filter(None, (spec.alias_note, *spec.notes)):
        yield Text(f"note: {note}")
    if disagreements:
        yield _disagreements(disagreements)


def _node(spec: HardwareSpec) -> str | None:
    """Say which node a device stands in, None for one without a link to others."""
    from hardware_specs.nodes import node_of

    try:
        node = node_of(spec)
    except InvalidInputError:
        return None
    links = f"{node.link} within {node.group}"
    if node.group < node.count:
        links += f", {node.beyond} beyond"
    if not node.id:
        return f"node: {node.name}"
    origin = f"{', '.join(node.provenance.source)}, {node.provenance.evidence}"
    return f"node: {node.name}, {node.count} devices, {links} ({origin})"


def _facts(spec: HardwareSpec) -> RenderableType:
    rows = [row for row in _fact_rows(spec) if row[1]]

    def origin(row: tuple[str, str, str]) -> tuple[Text, Text, Text]:
        # The remark on the memory covers several rows: once is enough.
        remark = row[2] != "memory" or row[0] == "memory"
        return _origin_cells(spec.provenance.get(row[2]), remark=remark)

    return table(
        rows,
        [
            *columns(quantity=0, value=1),
            *_origin_columns(origin),
        ],
        title="device",
    )


def _origin_columns(origin: Callable[[Any], tuple[Text, Text, Text]]) -> list[Column]:
    """Return the columns that say where a row's number comes from."""
    return columns(
        evidence=lambda row: origin(row)[0],
        source=lambda row: origin(row)[1],
        remark=lambda row: origin(row)[2],
    )


def _fact_rows(spec: HardwareSpec) -> Iterator[tuple[str, str, str]]:
    yield "vendor", f"{spec.vendor} {spec.architecture} {spec.chip or ''}".strip(), ""
    yield "year", str(spec.year or ""), ""
    yield "driver names", ", ".join(spec.device_names), ""
    yield "driver shows", spec.device_granularity or "", ""
    yield "compute capability", spec.compute_capability or "", "compute_capability"
    yield "units (SM, CU, cores)", str(spec.sm_count or ""), "sm_count"
    yield "clock", show_scaled(spec.boost_hz, 1e6, "MHz"), "boost_hz"
    yield "clock of matrix paths", show_scaled(spec.matrix_clock_hz, 1e6, "MHz"), "matrix_clock_hz"
    yield "L2 cache", show_scaled(spec.l2_bytes, 2**20, "MiB"), "l2_bytes"
    yield "last-level cache", show_scaled(spec.llc_bytes, 2**20, "MiB"), "llc_bytes"
    yield "power limit", show_scaled(spec.tdp_w, 1, "W"), "tdp_w"
    kind = f" {spec.memory_kind}" if spec.memory_kind else ""
    yield "memory", show_scaled(spec.memory_bytes, 2**30, f"GiB{kind}") or kind.strip(), "memory"
    key = "memory_reported_bytes"
    yield "memory reported", show_scaled(spec.memory_reported_bytes, 2**30, "GiB"), key
    if spec.memory_is_assumed:
        usable = show_scaled(spec.usable_memory_bytes, 2**30, "GiB")
        yield "memory assumed usable", f"{usable}: no figure of the driver is public", ""
    yield "bandwidth", show_scaled(spec.bandwidth_bytes_per_s, 1e9, "GB/s"), "memory"
    rate = show_scaled(spec.memory_data_rate_bits_per_pin_per_s, 1e9, "Gbit/s per pin")
    yield "bus", f"{spec.memory_bus_bits} bit x {rate}" if spec.memory_bus_bits else "", "memory"
    for kind, link in spec.links.items():
        form = f"gen {link.generation} x{link.lanes}, " if link.generation else ""
        one_way = show_scaled(link.bytes_per_s_per_direction, 1e9, "GB/s per direction")
        both = show_scaled(link.bytes_per_s_bidirectional, 1e9, "GB/s both directions")
        yield kind.replace("_", " "), form + ", ".join(filter(None, (one_way, both))), "links"
    for kind in spec.links_absent:
        yield kind.replace("_", " "), "none", "links"


def _peaks(spec: HardwareSpec) -> RenderableType:
    return table(
        spec.peaks.items(),
        [
            Column("path", 0),
            Column("Top/s", lambda peak: peak[1] / 1e12, "1"),
            Column("ridge op/B", lambda peak: f"{peak[1] / spec.bandwidth_bytes_per_s:.1f}", "1"),
            Column("units x clock", lambda peak: _arithmetic(spec, *peak), "1"),
            *_origin_columns(lambda peak: _origin_cells(spec.provenance.get(peak[0]))),
        ],
        title="peaks: dense, 1 FMA = 2 op; ridge: op per byte where compute takes over",
    )


def _arithmetic(spec: HardwareSpec, key: str, value: float) -> str:
    """Say how far units x clock is from a peak."""
    if key in spec.clock_inferred:
        return "inferred"
    arithmetic = spec.arithmetic_peak(key)
    return f"{arithmetic / value - 1:+.1%}" if arithmetic else ""


def _measured(spec: HardwareSpec) -> RenderableType:
    rates = {
        "highest": "max",
        "mean": "mean",
        "median >= 4096": "median_mnk_ge_4096",
        "p90 >= 4096": "p90_mnk_ge_4096",
    }
    return table(
        spec.measured,
        [
            Column("what", lambda rate: rate.what.replace("_", " ")),
            Column("dtype", "dtype"),
            *(Column(name, partial(_tera, key=key), "1") for name, key in rates.items()),
            Column("source", "source"),
        ],
        title="reached by benchmarks, in Top/s: no peaks",
    )


def _tera(rate: MeasuredRate, key: str) -> str:
    value: float | None = getattr(rate, key)
    return f"{value / 1e12:.4g}" if value else ""


def _documents(spec: HardwareSpec) -> list[tuple[str, str]]:
    known = list_sources()
    named = dict.fromkeys(key for origin in spec.provenance.values() for key in origin.source)
    named |= dict.fromkeys(rate.source for rate in spec.measured)
    rows = []
    for key in named:
        if key in spec.own_sources:
            rows.append((key, spec.own_sources[key]))
        elif key in known:
            source = known[key]
            address = source.url or (f"({source.found_in})" if source.found_in else "")
            rows.append((key, "\n".join(filter(None, (source.document, address)))))
    return rows


def _codes(spec: HardwareSpec) -> RenderableType:
    rows = []
    for code in dict.fromkeys(origin.evidence for origin in spec.provenance.values()):
        advice = "; check before building on it" if is_weak(code) else ""
        rows.append((_code(code), Text(explain_evidence(code) + advice, _WEAK if advice else "")))
    return table(rows, _PAIR, title="evidence")


def _disagreements(rows: Sequence[Disagreement]) -> RenderableType:
    shown = columns(
        device="about", field="field", list="list", theirs="theirs", right="right", why="why"
    )
    return table(rows, shown, title="other lists print something else")


def _peak_cell(spec: HardwareSpec, column: str) -> Text:
    dtype, engines = _PEAK_COLUMNS[column]
    for engine, mark in engines:
        value = spec.peak_or_none(dtype, engine)
        if value is not None:
            key = f"{dtype}.{engine}"
            origin = spec.provenance.get(f"{key}.acc32") or spec.provenance.get(key)
            return _marked(f"{value / 1e12:.5g}{mark}", origin)
    return Text("")


def _marked(text: str, origin: Provenance | None) -> Text:
    if not text or origin is None or not is_weak(origin.evidence):
        return Text(text)
    return Text(f"{text} ({origin.evidence[0]})", style=_WEAK)


def _origin_cells(origin: Provenance | None, *, remark: bool = True) -> tuple[Text, Text, Text]:
    if origin is None:
        return Text(""), Text(""), Text("")
    said = [origin.note] if origin.note and remark else []
    said += [f"{who} says {value}" for who, value in origin.others_say.items()]
    return _code(origin.evidence), Text(", ".join(origin.source)), Text("; ".join(said))


def _code(code: str) -> Text:
    """Return an evidence code, the weak ones marked also where there is no colour."""
    return Text(f"{code} !", style=_WEAK) if is_weak(code) else Text(code)
