"""How `specs list`, `specs show` and `specs detect` look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hardware_specs.sources import explain_evidence, is_weak, list_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from hardware_specs import Disagreement, HardwareSpec, Provenance

_WEAK = "yellow"

#: Column heading -> the paths it shows, best first, and how any but the first is marked.
_PEAK_COLUMNS = {
    "fp16": ("fp16", (("matrix", ""), ("vector", " v"))),
    "bf16": ("bf16", (("matrix", ""), ("vector", " v"))),
    "fp8": ("fp8", (("matrix", ""),)),
    "int8": ("int8", (("matrix", ""), ("dp4a", " dp4a"))),
    "fp32": ("fp32", (("matrix", " m"), ("vector", ""))),
}


def list_table(specs: Sequence[HardwareSpec]) -> Table:
    """Return one row per device: memory, bandwidth, main peaks, power."""
    table = Table(title=f"{len(specs)} devices; peaks dense, in Top/s (1 FMA = 2 op)")
    table.add_column("id", no_wrap=True)
    table.add_column("architecture")
    for heading in ("memory", "GB/s", *_PEAK_COLUMNS, "W"):
        table.add_column(heading, justify="right", no_wrap=True)
    for spec in specs:
        memory = spec.provenance.get("memory")
        table.add_row(
            spec.id,
            escape(spec.architecture),
            f"{spec.memory_bytes / 2**30:g} GiB" if spec.memory_bytes else "",
            _marked(f"{spec.bandwidth_bytes_per_s / 1e9:.5g}", memory),
            *(_peak_cell(spec, column) for column in _PEAK_COLUMNS),
            _marked(f"{spec.tdp_w:g}" if spec.tdp_w else "", spec.provenance.get("tdp_w")),
        )
    return table


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
    if spec.unsupported:
        said = (f"{key} ({why})" if why else key for key, why in spec.unsupported.items())
        yield Text(f"not supported: {', '.join(said)}")
    if spec.measured:
        yield _measured(spec)
    documents = _documents(spec)
    if documents.row_count:
        yield documents
    yield _codes(spec)
    for note in filter(None, (spec.alias_note, *spec.notes)):
        yield Text(f"note: {note}")
    if disagreements:
        yield _disagreements(disagreements)


def _facts(spec: HardwareSpec) -> Table:
    table = Table(title="device")
    for heading in ("quantity", "value", "evidence", "source", "remark"):
        table.add_column(heading)
    for quantity, value, key in _fact_rows(spec):
        if value:
            # The remark on the memory covers several rows: once is enough.
            remark = key != "memory" or quantity == "memory"
            origin = _origin_cells(spec.provenance.get(key), remark=remark)
            table.add_row(quantity, escape(value), *origin)
    return table


def _fact_rows(spec: HardwareSpec) -> Iterator[tuple[str, str, str]]:
    yield "vendor", f"{spec.vendor} {spec.architecture} {spec.chip or ''}".strip(), ""
    yield "year", str(spec.year or ""), ""
    yield "driver names", ", ".join(spec.device_names), ""
    yield "driver shows", spec.device_granularity or "", ""
    yield "compute capability", spec.compute_capability or "", "compute_capability"
    yield "units (SM, CU, cores)", str(spec.sm_count or ""), "sm_count"
    yield "clock", _scaled(spec.boost_hz, 1e6, "MHz"), "boost_hz"
    yield "clock of matrix paths", _scaled(spec.matrix_clock_hz, 1e6, "MHz"), "matrix_clock_hz"
    yield "L2 cache", _scaled(spec.l2_bytes, 2**20, "MiB"), "l2_bytes"
    yield "last-level cache", _scaled(spec.llc_bytes, 2**20, "MiB"), "llc_bytes"
    yield "power limit", _scaled(spec.tdp_w, 1, "W"), "tdp_w"
    kind = f" {spec.memory_kind}" if spec.memory_kind else ""
    yield "memory", _scaled(spec.memory_bytes, 2**30, f"GiB{kind}") or kind.strip(), "memory"
    key = "memory_reported_bytes"
    yield "memory reported", _scaled(spec.memory_reported_bytes, 2**30, "GiB"), key
    if spec.memory_is_assumed:
        usable = _scaled(spec.usable_memory_bytes, 2**30, "GiB")
        yield "memory assumed usable", f"{usable}: no figure of the driver is public", ""
    yield "bandwidth", _scaled(spec.bandwidth_bytes_per_s, 1e9, "GB/s"), "memory"
    rate = _scaled(spec.memory_data_rate_bits_per_pin_per_s, 1e9, "Gbit/s per pin")
    yield "bus", f"{spec.memory_bus_bits} bit x {rate}" if spec.memory_bus_bits else "", "memory"
    for kind, link in spec.links.items():
        form = f"gen {link.generation} x{link.lanes}, " if link.generation else ""
        one_way = _scaled(link.bytes_per_s_per_direction, 1e9, "GB/s per direction")
        both = _scaled(link.bytes_per_s_bidirectional, 1e9, "GB/s both directions")
        yield kind.replace("_", " "), form + ", ".join(filter(None, (one_way, both))), "links"
    for kind in spec.links_absent:
        yield kind.replace("_", " "), "none", "links"


def _peaks(spec: HardwareSpec) -> Table:
    table = Table(title="peaks: dense, 1 FMA = 2 op; ridge: op per byte where compute takes over")
    table.add_column("path")
    for heading in ("Top/s", "ridge op/B", "units x clock"):
        table.add_column(heading, justify="right")
    for heading in ("evidence", "source", "remark"):
        table.add_column(heading)
    for key, value in spec.peaks.items():
        arithmetic = spec.arithmetic_peak(key)
        shown = f"{arithmetic / value - 1:+.1%}" if arithmetic else ""
        if key in spec.clock_inferred:
            shown = "inferred"
        table.add_row(
            key,
            f"{value / 1e12:.5g}",
            f"{value / spec.bandwidth_bytes_per_s:.1f}",
            shown,
            *_origin_cells(spec.provenance.get(key)),
        )
    return table


def _measured(spec: HardwareSpec) -> Table:
    table = Table(title="reached by benchmarks, in Top/s: no peaks")
    for heading in ("what", "dtype", "highest", "mean", "median >= 4096", "p90 >= 4096", "source"):
        table.add_column(heading)
    for rate in spec.measured:
        table.add_row(
            rate.what.replace("_", " "),
            escape(rate.dtype),
            *(
                f"{value / 1e12:.4g}" if value else ""
                for value in (rate.max, rate.mean, rate.median_mnk_ge_4096, rate.p90_mnk_ge_4096)
            ),
            rate.source,
        )
    return table


def _documents(spec: HardwareSpec) -> Table:
    table = Table(title="documents", show_header=False)
    known = list_sources()
    named = dict.fromkeys(key for origin in spec.provenance.values() for key in origin.source)
    named |= dict.fromkeys(rate.source for rate in spec.measured)
    for key in named:
        if key in spec.own_sources:
            table.add_row(key, Text(spec.own_sources[key]))
        elif key in known:
            source = known[key]
            address = source.url or (f"({source.found_in})" if source.found_in else "")
            table.add_row(key, Text("\n".join(filter(None, (source.document, address)))))
    return table


def _codes(spec: HardwareSpec) -> Table:
    table = Table(title="evidence", show_header=False)
    for code in dict.fromkeys(origin.evidence for origin in spec.provenance.values()):
        advice = "; check before building on it" if is_weak(code) else ""
        style = _WEAK if advice else ""
        table.add_row(_code(code), Text(explain_evidence(code) + advice, style=style))
    return table


def _disagreements(rows: Sequence[Disagreement]) -> Table:
    table = Table(title="other lists print something else", show_lines=True)
    for heading in ("device", "field", "list", "theirs", "right", "why"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            *(escape(t) for t in (row.about, row.field, row.list, row.theirs, row.right, row.why))
        )
    return table


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


def _scaled(value: float | None, scale: float, unit: str) -> str:
    return "" if value is None else f"{value / scale:.5g} {unit}"
