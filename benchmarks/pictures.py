"""The pictures of README, from the project's own data; the explorer's is made where there is a Chromium.

PYTHONPATH=tests/fakes python benchmarks/pictures.py docs/images
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from chromium import Page, browser

from costmodel.plots import save_figure
from profiling import reconcile
from profiling.report import reconciliation_figures
from vlm_roofline.explorer import explorer_html

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "measurements" / "amd-epyc-2026-11-20" / "sweep.jsonl"
LAW = ROOT / "notebooks" / "data" / "amd-epyc-calibration.json"
DEVICES = ("nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb")


def main(folder: Path) -> None:
    figures = reconciliation_figures(reconcile(str(RUNS), LAW))
    save_figure(figures["latency"], folder / "latency_measured_cpu.png")
    save_figure(figures["waterfall-most-tokens"], folder / "waterfall_cpu.png")
    if browser() is None:
        print("no Chromium here: explorer.png stays as it is")
        return
    with tempfile.TemporaryDirectory() as held:
        path = Path(held) / "explorer.html"
        path.write_text(explorer_html(["llava-1.5-7b"], DEVICES), encoding="utf-8")
        page = Page(path.as_uri())
        try:
            page.wait("document.documentElement.dataset.drawn")
            page.look(width=1100)
            page.wait("document.querySelector('#stairs-chart svg')?.viewBox.baseVal.width < 540")
            page.picture(folder / "explorer.png", height=1475)
        finally:
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
