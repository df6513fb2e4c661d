"""`vlm-roofline report`: measurements and predictions as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import HTML, FoundHardware, Json, Records, TimesOf, written_to


def report(
    folders: Records,
    out: Annotated[Path, written_to("The HTML file.", *HTML)],
    calibration: TimesOf = "auto",
    hardware: FoundHardware = None,
    figures: Annotated[bool, typer.Option(help="Put the figures in.")] = True,
    json: Json = False,
) -> None:
    """Write a self-contained report: errors, parts of the gap, figures, flags."""
    from hardware_specs.files.writing import write_file
    from profiling.reconciling import reconcile
    from profiling.report.report import report_html

    result = reconcile(folders, calibration, hardware=hardware)
    pictures = {}
    if figures:
        from profiling.report import reconciliation_figures

        pictures = reconciliation_figures(result)
    write_file(out, report_html(result, pictures))
    if json:
        print_json({"out": str(out), "figures": list(pictures), "summary": result.summary})
        return
    console().print(f"{result.summary['runs']} runs, {len(pictures)} figures: {out}")
