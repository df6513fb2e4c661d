"""The pictures of README and of the gallery: the commands of docs/gallery.md, and what no command saves.

PYTHONPATH=tests/fakes python benchmarks/pictures.py       those of HTML pages need a Chromium
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import tempfile
from pathlib import Path

from chromium import Page, browser
from page_runs import console_runs

from costmodel.plots import save_figure
from profiling import reconcile
from profiling.report import reconciliation_figures
from vlm_roofline.cli import main as command_line

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
RUNS = ROOT / "measurements" / "amd-epyc-2026-11-20" / "sweep.jsonl"
LAW = ROOT / "notebooks" / "data" / "amd-epyc-calibration.json"
NOTEBOOK = ROOT / "notebooks" / "02_reducing_visual_tokens.ipynb"
#: Figure of a reconciliation -> its file.
MEASURED = {
    "latency": "latency_measured_cpu",
    "waterfall-most-tokens": "waterfall_cpu",
    "gap-1": "gap_cpu",
    "predicted-vs-measured": "predicted_cpu",
}


def commands() -> None:
    """Run the commands of the gallery, here; those that name docs/images draw into it."""
    for folder in ("docs", "measurements", "notebooks", "tests"):
        Path(folder).symlink_to(ROOT / folder)
    for line, _ in console_runs(ROOT / "docs" / "gallery.md"):
        command_line(shlex.split(line)[1:])


def measured() -> None:
    """Save the figures of a reconciliation as PNG."""
    figures = reconciliation_figures(reconcile(str(RUNS), LAW))
    for name, file in MEASURED.items():
        save_figure(figures[name], IMAGES / f"{file}.png")


def kept() -> None:
    """Take what methods keep from the executed notebook."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    (drawn,) = [
        output["data"]["image/png"]
        for cell in cells
        if "imshow" in "".join(cell["source"])
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    (IMAGES / "kept.png").write_bytes(base64.b64decode(drawn))


def pages() -> None:
    """Look at the explorer and at the report that the commands wrote."""
    if browser() is None:
        print("no Chromium here: explorer.png and report.png stay as they are")
        return
    page = Page(Path("explorer.html").absolute().as_uri())
    try:
        page.wait("document.documentElement.dataset.drawn")
        page.look(width=1100)
        page.wait("document.querySelector('#stairs-chart svg')?.viewBox.baseVal.width < 540")
        page.picture(IMAGES / "explorer.png", height=1475)
        page.open(Path("report.html").absolute().as_uri())
        page.picture(IMAGES / "report.png", height=1475)
    finally:
        page.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as held:
        os.chdir(held)
        commands()
        measured()
        kept()
        pages()
        os.chdir(ROOT)
