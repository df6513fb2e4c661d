from __future__ import annotations

import base64
import gzip
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from costmodel.models import config_dict
from profiling import reconcile
from profiling.reconciling import OpProfile
from profiling.records.measurement import TokenCounts
from profiling.records.readings import EnergyWindow
from profiling.records.storage import parse_measurement
from profiling.report import reconciliation_figures
from profiling.report.report import report_html
from profiling.tracing.op_profile import OpRecord

HOSTILE = "<script>alert('x')<"


class Tags(HTMLParser):
    """Every element and attribute of a page, and whether all were closed."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.names, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open
    return tags


@pytest.fixture
def hostile_model(tmp_path):
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_dict("llava-1.5-7b")))
    return str(folder)


def test_everything_printed_is_escaped(lab, hostile_model):
    config = replace(lab.configuration(), model=hostile_model)
    record = lab.measured(config, error=None)
    record = replace(record, environment={**record.environment, "torch": "2.13 <b>&"})
    window = EnergyWindow("total", "<i>counter", energy_j=1.0, power_w=100.0, idle_power_w=50.0)
    failed = replace(
        record, status="failed", error="RuntimeError: <script>alert(2)</script>", stages={}, round=1
    )
    row = OpRecord("prefill", "<script>op", "gemm", 1, 0.1)
    profile = OpProfile(config, TokenCounts(576, 64, 40, 1, ()), (row,), record.environment)
    result = reconcile([replace(record, energy=(window,)), failed, profile], lab.law_of())
    page = report_html(result, reconciliation_figures(result))
    tags = parsed(page)
    assert "script" not in tags.names
    assert "b" not in tags.names
    assert "i" not in tags.names
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;" in page
    assert "RuntimeError: &lt;script&gt;alert(2)" in page
    # Nothing is fetched: pictures are inside, and no address is anywhere.
    inside = ("data:image/svg+xml;base64,", "data:application/gzip;base64,", "#")
    assert all(link.startswith(inside) for link in tags.links)
    assert "default-src 'none'" in page


def test_a_report_holds_every_section_that_has_something_to_say(lab):
    law = lab.law_of()
    records = [
        lab.measured(lab.configuration(visual_tokens=n), calibration=law, factor=1.1)
        for n in (1, 64, 576)
    ]
    result = reconcile(records, law)
    figures = reconciliation_figures(result)
    page = report_html(result, figures)
    tags = parsed(page)
    assert tags.names.count("img") == len(figures) >= 5
    for words in ("How far off", "Run by run", "Over visual tokens", "Nothing is flagged", "9.1%"):
        assert words in page
    assert "Energy" not in page  # nothing was measured
    assert "By op class" not in page
    assert "kernel granularity" in page
    # The page without pictures is the same page.
    assert "<img" not in report_html(result)


def test_pictures_say_what_they_show(lab):
    law = lab.law_of()
    result = reconcile(
        [lab.measured(lab.configuration(visual_tokens=n)) for n in (1, 64, 576)], law
    )
    page = report_html(result, reconciliation_figures(result))
    assert page.count('alt="') == page.count("<img")
    assert 'alt="Predicted against measured. ' in page


def test_the_raw_data_are_the_runs(lab):
    records = [lab.measured(lab.configuration(visual_tokens=n)) for n in (1, 64)]
    result = reconcile(records, lab.law_of())
    links = [link for link in parsed(report_html(result)).links if "gzip" in link]
    texts = [gzip.decompress(base64.b64decode(link.partition(",")[2])).decode() for link in links]
    assert json.loads(texts[0])["summary"]["runs"] == 2
    again = [parse_measurement(line) for line in texts[1].splitlines()]
    assert [record.to_dict() for record in again] == [record.to_dict() for record in records]
    assert reconcile(again, lab.law_of()).rows == result.rows


def test_every_part_has_a_name_and_the_contents_lead_to_it(lab):
    record = lab.measured(lab.configuration())
    profile = OpProfile(
        lab.configuration(), TokenCounts(576, 576, 40, 1, ()),
        (OpRecord("prefill", "down_proj", "gemm", 32, 0.1),), record.environment,
    )  # fmt: skip
    other = replace(record, round=1, environment={**record.environment, "driver": "590.1"})
    page = report_html(reconcile([record, other, profile], lab.law_of()))
    led = [link[1:] for link in parsed(page).links if link.startswith("#")]
    assert {"overview", "flags", "errors", "every-op", "environment", "raw"} <= set(led)
    assert all(f'<h2 id="{name}">' in page for name in led)
    assert "590.1 (1 run)" in page
    assert '<td class="words">down_proj</td>' in page


def test_passes_and_windows_are_told_apart(lab):
    window = EnergyWindow("total", "nvml_counter", energy_j=1.0, power_w=100.0, idle_power_w=50.0)
    record = replace(lab.measured(lab.configuration(visual_tokens=64)), energy=(window,))
    op = OpRecord("prefill", "down_proj", "gemm", 32, 0.1)
    profiles = [
        OpProfile(
            lab.configuration(batch_size=batch), TokenCounts(576, 576, 40, 1, ()), (op,),
            record.environment,
        )
        for batch in (1, 8)
    ]  # fmt: skip
    page = report_html(reconcile([record, *profiles], lab.law_of()))
    for batch in (1, 8):
        assert f"none, 576 visual tokens, 40 text tokens, batch {batch}, eager</p>" in page
        assert f" b{batch} eager, 576 visual tokens</td>" in page
    assert "b1 eager, 64 visual tokens</td>" in page.partition("Energy</h2>")[2]
