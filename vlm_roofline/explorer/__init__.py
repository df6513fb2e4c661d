"""The explorer: a grid of estimates as one HTML file with charts and tables, no server, no network.

    explorer_html(["llava-1.5-7b"], ["nvidia-l40s"], Axes(method=("fastv",), keep=(0.5,)))    -> HTML

`grid` prices every point, `page` packs them with the scripts (`*.js`) and the style sheet beside it.
"""

from __future__ import annotations

from vlm_roofline.explorer.grid import Axes
from vlm_roofline.explorer.page import explorer_html

__all__ = ["Axes", "explorer_html"]
