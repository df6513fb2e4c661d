"""A report in a real browser: it asks for nothing, complains of nothing, and no window is too small."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import Page, browser

from vlm_roofline.cli import main

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
ROOT = Path(__file__).parents[2]
RUNS = ROOT / "measurements" / "amd-epyc-2026-11-20" / "sweep.jsonl"
LAW = ROOT / "notebooks" / "data" / "amd-epyc-calibration.json"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(RUNS), "--calibration", str(LAW), "--out", str(out)]) == 0
    opened = Page(out.as_uri())
    yield opened
    opened.close()


def test_nothing_is_fetched_and_every_picture_is_drawn(page) -> None:
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == page.requests[:1]
    widths = page.run("[...document.images].map((picture) => picture.naturalWidth)")
    assert len(widths) >= 5
    assert all(widths)


def test_every_link_of_the_contents_leads_somewhere(page) -> None:
    missing = "[...document.querySelectorAll('nav a')].filter((a) => !document.querySelector(a.hash)).length"
    assert page.run(missing) == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(page, width, dark) -> None:
    page.look(width=width, dark=dark)
    page.wait(f"document.documentElement.scrollWidth <= {width}")
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_a_phone_shows_values_beside_the_names(page) -> None:
    page.look(width=390)
    assert (
        page.run(
            "document.querySelector('#runs ~ .wide tbody td:nth-child(3)').getBoundingClientRect().right"
        )
        <= 390
    )
