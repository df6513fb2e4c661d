"""The explorer in a real browser: no request, no complaint, and the numbers of `estimate --json`."""

from __future__ import annotations

import json
import shlex

import pytest
from chromium import Page, browser

from costmodel.models import config_dict
from vlm_roofline.cli import main

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
TEXTS = {
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "B": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    out = tmp_path_factory.mktemp("explorer") / "x.html"
    options = "--method fastv,divprune --keep 50%,64 --precision auto,int4 --batch-size 1,8"
    sizes = "--text-tokens 40,512 --output-tokens 32,256 --image-size 448x448,896x896"
    models = "llava-1.5-7b qwen2.5-vl-3b -d a100,l40s"
    assert (
        main(shlex.split(f"explore {models} {options} {sizes} --out {shlex.quote(str(out))}")) == 0
    )
    return out.as_uri()


@pytest.fixture
def page(address):
    opened = Page(address)
    try:
        drawn(opened)
        yield opened
        assert opened.complaints == []
        assert {url for url in opened.requests if not url.startswith(("data:", "blob:"))} <= {
            url for url in opened.requests if url.startswith(address)
        }
    finally:
        opened.close()


def drawn(page: Page, after: str = "0") -> str:
    page.wait(f"Number(document.documentElement.dataset.drawn ?? 0) > {after}")
    return str(page.run("document.documentElement.dataset.drawn"))


def change(page: Page, identifier: str, value: object) -> None:
    """Choose a value in a control, as a person does."""
    before = page.run("document.documentElement.dataset.drawn")
    page.run(
        f"""(() => {{ const box = document.getElementById({json.dumps(identifier)});
        if (box.tagName === 'SELECT') box.selectedIndex =
            [...box.options].findIndex((one) => one.text === {json.dumps(str(value))});
        else box.value = {json.dumps(value)};
        box.dispatchEvent(new Event(box.tagName === 'SELECT' ? 'change' : 'input')); }})()"""
    )
    drawn(page, before)


def headline(page: Page, key: str, side: str) -> tuple[float, str]:
    cell = f'#headline tr[data-key="{key}"] td[data-side="{side}"]'
    value = page.run(f"document.querySelector('{cell}').dataset.value")
    text = page.run(f"document.querySelector('{cell}').firstChild.textContent")
    return float(value), str(text)


def answered(page: Page, side: str, capsys) -> dict:
    """Run the command that stands in a panel, and return its JSON."""
    typed = page.run(f"document.querySelector('fieldset.{side} code').textContent")
    program, *arguments = shlex.split(typed)
    assert program == "vlm-roofline"
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(value: float, unit: str) -> str:
    factor, name = next(one for one in TEXTS[unit] if value >= one[0])
    return f"{float(f'{value:.5g}') / factor:#.5g} {name}".replace(". ", " ")


def check(page: Page, side: str, capsys) -> None:
    found = answered(page, side, capsys)
    totals, memory = found["totals"], found["memory"]
    for key, unit, value in (
        ("ttft_s", "s", totals["ttft_s"]),
        ("tpot_s", "s", totals["tpot_s"]),
        ("time_s", "s", totals["time_s"]),
        ("ideal_time_s", "s", totals["ideal_time_s"]),
        ("peak_memory_bytes", "B", memory["peak_memory_bytes"]),
        ("kv_cache_bytes", "B", memory["kv_cache_bytes"]),
    ):
        shown, text = headline(page, key, side)
        assert shown == float(f"{value:.5g}"), key
        assert text == printed(value, unit), key
    assert headline(page, "mean", side)[0] == pytest.approx(found["mean_visual_tokens"], rel=1e-4)


def test_numbers_are_those_of_the_command_line_wherever_the_controls_stand(page, capsys) -> None:
    check(page, "a", capsys)
    check(page, "b", capsys)
    change(page, "a-batch_size", 1)  # the slider's second place
    assert "--batch-size 8" in page.run("document.querySelector('fieldset.a code').textContent")
    check(page, "a", capsys)
    change(page, "b-hardware", "nvidia-l40s")
    change(page, "b-method", "divprune")
    change(page, "b-keep", 1)
    change(page, "b-precision", "int4")
    change(page, "b-output_tokens", 1)
    check(page, "b", capsys)
    change(page, "a-model", "qwen2.5-vl-3b")
    change(page, "a-image_size", 1)
    change(page, "a-text_tokens", 1)
    check(page, "a", capsys)


def test_the_address_says_all_that_is_chosen(page, address, capsys) -> None:
    change(page, "a-batch_size", 1)
    change(page, "b-keep", 1)
    page.run("document.getElementById('ops-words').value = 'gemm'")
    page.run("document.getElementById('ops-words').dispatchEvent(new Event('input'))")
    fragment = page.run("location.hash")
    before = page.run("document.getElementById('results').innerText")
    page.open("about:blank")
    page.open(address + fragment)
    drawn(page)
    assert page.run("document.getElementById('results').innerText") == before
    check(page, "b", capsys)


def test_the_op_table_sorts_and_filters(page) -> None:
    column = (
        "[...document.querySelectorAll('#ops tbody tr')].map((row) => row.cells[5].dataset.value)"
    )
    button = "document.querySelector('#ops th:nth-child(6) button')"
    page.run(f"{button}.click()")
    times = [float(one) for one in page.run(column)]
    assert len(times) > 30
    assert times == sorted(times, reverse=True)
    page.run(f"{button}.focus()")
    page.press("Enter", 13)
    page.run(f"{button}.click()") if page.run(column)[0] == str(times[0]) else None
    assert [float(one) for one in page.run(column)] == sorted(times)
    assert (
        page.run("document.querySelector('#ops th:nth-child(6)').getAttribute('aria-sort')")
        == "ascending"
    )
    page.run("document.getElementById('ops-words').value = 'decode gemm'")
    page.run("document.getElementById('ops-words').dispatchEvent(new Event('input'))")
    stages = (
        "[...document.querySelectorAll('#ops tbody tr')].map((row) => row.cells[0].textContent)"
    )
    assert set(page.run(stages)) == {"decode"}


def test_the_keyboard_moves_a_slider_and_keeps_its_place(page) -> None:
    page.run("document.getElementById('a-output_tokens').focus()")
    before = page.run("document.documentElement.dataset.drawn")
    page.press("ArrowRight", 39)
    drawn(page, before)
    assert page.run("document.activeElement.id") == "a-output_tokens"
    assert "--output-tokens 256" in page.run(
        "document.querySelector('fieldset.a code').textContent"
    )


def test_every_point_is_in_the_download(page) -> None:
    text = page.run("unpack(0).then(csvOf)")
    lines = text.strip().split("\n")
    assert len(lines) == 1 + 2 * 5 * 2 * 2 * 2
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert row["method"] == "divprune"
    assert row["keep"] == "64"
    assert float(row["ttft_s"]) > 0


@pytest.mark.parametrize("width", [360, 390, 800, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(page, width, dark) -> None:
    page.look(width=width, dark=dark)
    page.wait(f"document.documentElement.scrollWidth <= {width}")
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_a_phone_shows_the_ratio_and_the_times(page) -> None:
    """The last column of the headline and the time of an op stand inside the window, nothing scrolled."""
    page.look(width=390)
    for cell in ("#headline tbody tr td:last-child", "#ops tbody tr td:nth-child(6)"):
        assert page.run(f"document.querySelector('{cell}').getBoundingClientRect().right") <= 390


def test_what_is_printed_is_dark_on_white(page) -> None:
    page.look(width=800, dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('.bar')).display") == "none"


def test_a_name_is_only_ever_text(tmp_path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)><b>"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_dict("llava-1.5-7b")))
    out = tmp_path / "x.html"
    line = ["explore", str(folder), "-d", "l40s", "--method", "none", "--precision", "fp16"]
    assert main([*line, "--text-tokens", "40", "--output-tokens", "8", "--out", str(out)]) == 0
    page = Page(out.as_uri())
    try:
        drawn(page)
        assert "<img src=x" in page.run("document.querySelector('fieldset.a code').textContent")
        assert page.run("document.images.length + document.querySelectorAll('b').length") == 0
        assert page.complaints == []
        assert page.requests == page.requests[:1]
    finally:
        page.close()
