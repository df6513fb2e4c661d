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

import numpy as np
import torch
from chromium import Page, browser
from page_runs import console_runs
from PIL import Image

from costmodel.plots import save_figure
from profiling import build_model, reconcile
from profiling.report import reconciliation_figures
from token_reduction import reduce_tokens
from token_reduction.pictures.overlay import draw_clip
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


def clip() -> None:
    """Draw what two methods keep of a box that passes a house, in a small random LLaVA-OneVision."""
    house = Image.open(ROOT / "notebooks" / "data" / "house.png").convert("RGB").resize((384, 384))
    frames = [house.copy() for _ in range(8)]
    for number, frame in enumerate(frames):
        frame.paste((40, 60, 180), (20 + number * 40, 290, 80 + number * 40, 330))
    model = build_model("llava-onevision-7b@layers=2,width=1/4", dtype="fp32", device="cpu")
    pixels = np.stack([np.asarray(frame) for frame in frames]).transpose(0, 3, 1, 2)
    ids = torch.tensor([[1, *[model.config.video_token_id] * (8 * 196 + 1), 2]])
    sheets = []
    for method in ("evs", "dycoke"):
        with torch.no_grad(), reduce_tokens(model, method) as record:
            model(input_ids=ids, pixel_values_videos=torch.from_numpy(pixels)[None] / 127.5 - 1)
        sheets.append(draw_clip(frames, record, (14, 14)))
    both = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)))
    for number, sheet in enumerate(sheets):
        both.paste(sheet, (0, number * sheets[0].height))
    both.save(IMAGES / "clip.png", optimize=True)


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
        clip()
        pages()
        os.chdir(ROOT)
