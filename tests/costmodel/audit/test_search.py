"""What a search finds is what the table was counted with, and altered digits are not explained."""

from __future__ import annotations

import json

import numpy as np
import pytest

from costmodel.audits import audit
from costmodel.audits.search import altered, digits_of
from costmodel.audits.table import Cell
from hardware_specs.errors import InvalidInputError

HEAD = "method,model,visual_full,schedule,quantity,unit,printed\n"
SCHEDULES = ("0:V", "0:192", "0:128", "0:64", "0:V;2:0.5V", "0:V;8:288;16:144;24:72")


def mac3(n):
    """MACs of a layer of LLaVA-1.5-7B, three FFN matrices and full attention."""
    return 4 * n * 4096**2 + 2 * n * n * 4096 + 3 * n * 4096 * 11008


def by_hand(text, places=3, factors=None):
    layers = [
        [576] * 32, [192] * 32, [128] * 32, [64] * 32, [576] * 2 + [288] * 30,
        [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8,
    ]  # fmt: skip
    values = [sum(mac3(n + text) for n in counts) / 1e12 for counts in layers]
    factors = np.ones(len(values)) if factors is None else factors
    return HEAD + "".join(
        f"r{i},llava-1.5-7b,576,{schedule},prefill_flops,T,{value * factor:.{places}f}\n"
        for i, (schedule, value, factor) in enumerate(zip(SCHEDULES, values, factors, strict=True))
    )


def test_a_table_counted_by_hand_is_explained():
    found = audit(by_hand(47))
    assert (found.verdict, found.cells, found.matched, found.p_value) == ("explained", 6, 6, 0.001)
    best = found.assumptions["flops"]
    assert (best["operations"], best["ffn_matrices"], best["attention"]) == ("MAC", "3", "full")
    assert best["text_tokens"] == 47
    assert found.rivals == ()
    assert found.contradictions == ()
    assert found.copies["most"] < 6


def test_few_digits_explain_without_identifying():
    found = audit(by_hand(47, places=1))
    assert (found.verdict, found.matched) == ("explained, not identified", 6)
    assert found.rivals


def test_altered_digits_are_not_explained():
    random = np.random.default_rng(0)
    verdicts = [
        audit(by_hand(47, factors=random.uniform(0.97, 1.03, 6)), copies=99).verdict
        for _ in range(100)
    ]
    assert verdicts.count("explained") <= 5
    assert verdicts.count("not explained") >= 95


def test_one_cell_that_does_not_fit_is_named_with_what_it_needs():
    text = by_hand(47)
    broken = text.replace(text.splitlines()[3].split(",")[-1], "1.200")
    found = audit(broken, copies=99)
    assert (found.verdict, found.matched, found.cells) == ("not explained", 5, 6)
    (missed,) = found.missed
    assert missed["cell"] == "r2, flops 1.200 T"
    low, high = missed["needs_tokens"]
    assert [round(sum(32 * [mac3(n + 47)]) / 1e12, 3) for n in (low, high)] == [1.2, 1.2]


def test_one_number_proves_nothing_and_is_answered_with_what_prints_it():
    found = audit("method,tokens,TFLOPs\nVanilla,576,8.5\n", model="llava-1.5-7b")
    assert (found.verdict, found.cells, found.p_value) == ("explained, not identified", 1, 1.0)
    assert len(found.rivals) > 10
    assert any("one number" in remark for remark in found.remarks)


def test_a_stated_text_length_is_tried_first():
    found = audit(by_hand(47, places=2), text_tokens=47)
    assert found.assumptions["flops"]["text_stated"]
    assert found.verdict == "explained"
    other = audit(by_hand(47), text_tokens=30)
    assert other.assumptions["flops"]["text_tokens"] == 47
    assert "text_stated" not in other.assumptions["flops"]


def test_what_is_no_evidence():
    text = (
        "method,model,visual_full,schedule,schedule_kind,quantity,unit,printed,ratio_of\n"
        "V,llava-1.5-7b,576,0:V,,prefill_flops,T,8.5,\n"
        "V,llava-1.5-7b,576,0:V,,prefill_flops_ratio,%,100,V\n"
        "A,llava-1.5-7b,576,0:64,,prefill_flops,T,1.8,\n"
        "A,llava-1.5-7b,576,0:64,,prefill_flops_ratio,%,21,V\n"
        "B,llava-1.5-7b,576,0:64,,prefill_flops,T,1.8,\n"
        "C,llava-1.5-7b,576,unknown,,prefill_flops,T,3.0,\n"
        "D,llava-1.5-7b,576,0:V;3:64,inferred,prefill_flops,T,2.5,\n"
    )
    found = audit(text, copies=0)
    assert found.cells == 2
    assert sorted(each["why"] for each in found.left_out) == [
        "it follows from printed cells", "it follows from printed cells", "it repeats another cell",
        "its schedule is inferred", "its tokens are not stated",
    ]  # fmt: skip


def test_whole_flops_of_thirteen_digits():
    text = "method,model,visual_full,schedule,quantity,unit,printed\n"
    text += "".join(
        f"r{n},llava-1.5-7b,576,0:{n},prefill_flops,,{32 * mac3(n + 40)}\n" for n in (576, 64, 128)
    )
    found = audit(text, copies=9)
    assert (found.matched, found.rivals) == (3, ())


def test_copies():
    cells = [Cell("r", "m", None, "flops", text, 1.0) for text in ("8.50", "0.4", "3.168")]
    copies = altered(cells, 500, seed=3)
    own = digits_of(cells)
    assert own.tolist() == [850, 4, 3168]
    assert (copies != own).any(axis=1).all()
    assert (np.abs(copies / own - 1) <= 0.03 + 0.5 / own).all()
    assert (altered(cells, 500, seed=3) == copies).all()
    # Where no digit can change, a copy is the table, and nothing is told by it.
    assert (altered(cells[1:2], 5, seed=0) == 4).all()


def test_the_document():
    found = audit(by_hand(47), copies=99)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["schema_version"] == 1
    assert {
        "verdict", "cells", "matched", "p_value", "assumptions", "rivals", "contradictions",
        "impossible",
    } <= set(document)  # fmt: skip


@pytest.mark.parametrize("name", ["copies", "seed", "text_tokens"])
@pytest.mark.parametrize("value", [-1, True, 1.5, 10**10])
def test_numbers_must_be_whole_and_in_their_range(name, value):
    with pytest.raises(InvalidInputError, match=f"^{name} must be a whole number"):
        audit(by_hand(47), **{name: value})
