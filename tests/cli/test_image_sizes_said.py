"""Commands say in words how many visual tokens an image of the given size is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_roofline.cli import main
from vlm_roofline.cli.units import show_visual_tokens

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_frontier_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--image-size", "720p", "-d", "a100"]
    assert main(["frontier", "llava-1.5-7b", "--benchmark", "mmbench", *asked]) == 0
    assert "an image gives 576 visual tokens (720x1280)" in capsys.readouterr().out
    # 720 / 32 rounds to 22 tokens, 1280 / 32 is 40.
    for kind in ("memory", "latency"):
        out = tmp_path / f"{kind}.svg"
        assert main(["plot", kind, "qwen3-vl-2b", *asked, "--out", str(out)]) == 0
        assert "880 visual tokens" in " ".join(out.read_text(encoding="utf-8").split())


def test_several_sizes() -> None:
    sizes = {"visual_tokens": 9, "image_size": [[1, 2], [3, 4]]}
    assert show_visual_tokens(sizes) == "9 visual tokens (1x2+3x4)"
    assert show_visual_tokens({"visual_tokens": 9, "image_size": None}) == "9 visual tokens"
