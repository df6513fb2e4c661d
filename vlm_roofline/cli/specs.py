"""`vlm-roofline specs`: the devices there are, everything known about one, and this machine's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json, written_to

if TYPE_CHECKING:
    from hardware_specs import HardwareSpec


group = typer.Typer(help="What devices can do, and where each number comes from.")


@group.command("list")
def list_specs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD...]",
            help="Only devices whose id, name, vendor or architecture has every word.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the devices with their main figures."""
    from hardware_specs import get_hardware, list_hardware

    specs = [get_hardware(hardware_id) for hardware_id in list_hardware()]
    specs = [spec for spec in specs if _has_words(spec, words or [])]
    if json:
        print_json([_summary(spec) for spec in specs])
        return
    from vlm_roofline.cli.specs_tables import list_table, mark_legend

    if not specs:
        console().print(
            f"no device has {' and '.join(words or [])} in its id, name, vendor or architecture"
        )
        return
    console().print(list_table(specs))
    console().print(mark_legend())


@group.command("show")
def show(
    hardware: Annotated[
        str,
        typer.Argument(
            help="Device id (see `specs list`) or a YAML file.",
            autocompletion=completes("hardware"),
        ),
    ],
    json: Json = False,
) -> None:
    """Show every number of a device with its unit, its source and how it was obtained."""
    from hardware_specs import get_hardware

    _print_spec(get_hardware(hardware), json=json)


@group.command("detect")
def detect(
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    out: Annotated[
        Path | None,
        written_to("Also write FILE.yaml; the file's name becomes the id.", ".yaml", ".yml"),
    ] = None,
    json: Json = False,
) -> None:
    """Find this machine's GPU by its exact name; without one, measure the CPU."""
    from dataclasses import replace

    from hardware_specs import detect_hardware, save_hardware

    spec = detect_hardware(device)
    if out is not None:
        spec = replace(spec, id=out.stem)
        save_hardware(spec, out)
    _print_spec(spec, json=json)


def _print_spec(spec: HardwareSpec, *, json: bool) -> None:
    from hardware_specs import list_disagreements

    disagreements = list_disagreements(spec.id)
    if json:
        print_json(_document(spec, disagreements))
        return
    from vlm_roofline.cli.specs_tables import spec_view

    for part in spec_view(spec, disagreements):
        console().print(part)


def _has_words(spec: HardwareSpec, words: list[str]) -> bool:
    text = " ".join((spec.id, spec.name, spec.vendor, spec.architecture)).lower()
    return all(word.lower() in text for word in words)


def _summary(spec: HardwareSpec) -> dict[str, Any]:
    return {
        "id": spec.id,
        "name": spec.name,
        "vendor": spec.vendor,
        "architecture": spec.architecture,
        "memory_bytes": spec.memory_bytes,
        "bandwidth_bytes_per_s": spec.bandwidth_bytes_per_s,
        "tdp_w": spec.tdp_w,
        "peaks": dict(spec.peaks),
        "evidence": {
            key: origin.evidence
            for key, origin in spec.provenance.items()
            if key in spec.peaks or key == "memory"
        },
    }


def _document(spec: HardwareSpec, disagreements: tuple[Any, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    from hardware_specs import list_sources
    from hardware_specs.document import spec_to_dict
    from hardware_specs.sources import explain_evidence

    documents = list_sources()
    named = {key for origin in spec.provenance.values() for key in origin.source}
    named |= {rate.source for rate in spec.measured}
    codes = {origin.evidence for origin in spec.provenance.values()}
    return {
        **spec_to_dict(spec),
        "usable_memory_bytes": spec.usable_memory_bytes,
        "documents": {key: asdict(documents[key]) for key in sorted(named) if key in documents},
        "evidence_codes": {code: explain_evidence(code) for code in sorted(codes)},
        "disagreements": [asdict(row) for row in disagreements],
    }
