"""A table's contradictions are named, each by hand; a table that has none is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.audits.assumptions import Reading, flops_families
from costmodel.audits.contradictions import contradictions
from costmodel.audits.counting import counted
from costmodel.audits.reading import read_grid
from costmodel.audits.rows import table_of

HEAD = "method,model,visual_full,schedule,quantity,unit,printed,ratio_of\n"


def table(*rows):
    lines = [f"{row},llava-1.5-7b,576,{schedule},{rest}" for row, schedule, rest in rows]
    return table_of(read_grid(HEAD + "\n".join(lines), "t"), "t")


def kinds(*rows):
    return [found["kind"] for found in contradictions(table(*rows))]


def flops(row, schedule, printed):
    return row, schedule, f"prefill_flops,T,{printed},"


def test_a_ratio_that_its_own_cells_do_not_give():
    rows = [flops("Vanilla", "0:V", "8.5"), flops("Zip", "0:64", "1.8")]
    # 1.75 / 8.55 = 20.5 % and 1.85 / 8.45 = 21.9 % are the ends.
    for printed, expected in (("21", []), ("22", []), ("25", ["ratio"]), ("19", ["ratio"])):
        ratio = ("Zip", "0:64", f"prefill_flops_ratio,%,{printed},Vanilla")
        assert kinds(*rows, ratio) == expected
    (found,) = contradictions(table(*rows, ("Zip", "0:64", "flops_ratio,%,25,Vanilla")))
    assert "gives 21.18 %, the table prints 25 %" in found["text"]


def test_times_and_savings_are_ratios_too():
    rows = [("Vanilla", "0:V", "latency,ms,50.0,"), ("Zip", "0:64", "latency,ms,25.0,")]
    assert kinds(*rows, ("Zip", "0:64", "latency speedup,x,2.0,Vanilla")) == []
    assert kinds(*rows, ("Zip", "0:64", "latency speedup,x,2.6,Vanilla")) == ["ratio"]
    assert kinds(*rows, ("Zip", "0:64", "latency reduction,%,60,Vanilla")) == ["ratio"]


def test_the_same_inputs_with_other_digits():
    assert kinds(flops("A", "0:64", "2.03"), flops("B", "0:64", "2.04")) == ["same inputs"]
    # 2.0 is 2.04 with a digit less, and 576 tokens are V.
    assert kinds(flops("A", "0:64", "2.0"), flops("B", "0:64", "2.04")) == []
    assert kinds(flops("A", "0:V", "8.5"), flops("B", "0:576", "8.8")) == ["same inputs"]


def test_rows_of_one_mean_further_apart_than_schedules_can_be():
    # 4 q (n m - m^2) l = 4 x 4096 x (576 x 64 - 64^2) x 32 = 0.0172 TFLOP, and 0.013 for one token.
    assert kinds(flops("A", "mean:64", "2.11"), flops("B", "mean:64", "2.13")) == []
    assert kinds(flops("A", "mean:64", "2.11"), flops("B", "mean:64", "2.26")) == ["difference"]


def test_a_cost_of_a_token_that_falls_with_the_tokens():
    rows = [flops("A", "0:128", "2.3"), flops("B", "0:288", "4.7"), flops("V", "0:V", "8.5")]
    (found,) = contradictions(table(*rows))
    # (8.55 - 4.65) / 288 against (4.65 - 2.35) / 160
    assert "at most 0.0135 T" in found["text"]
    assert "at least 0.0144" in found["text"]


def test_operations_that_change_with_the_bit_width_in_one_pair_alone():
    rows = []
    for count, half, quarter in ((576, "9.3", "2.3"), (128, "1.80", "0.45"), (64, "0.91", "0.28")):
        rows += [flops("fp16", f"0:{count}", half), flops("int4", f"0:{count}", quarter)]
    (found,) = [f for f in contradictions(table(*rows)) if f["kind"] == "precision"]
    assert "0.28" in found["text"]
    assert kinds(*rows[:4]) == []


@pytest.mark.parametrize("seed", range(4))
def test_tables_that_are_counted_one_way_contradict_nothing(seed):
    random = np.random.default_rng(seed)
    schedules = ["0:V", "0:192", "0:128", "0:64", "0:32", "0:V;2:0.5V", "0:V;16:frozen"]
    blank = table(*(flops(f"r{i}", s, "1.0") for i, s in enumerate(schedules)))
    ready, _ = counted(blank.cells, [None] * len(schedules), [Reading()], kv=False)
    families = flops_families(1, grouped=False, tower=True, per_layer=False)
    for family in families[random.permutation(len(families))[:40]]:
        values = ready.values(family[None], random.integers(0, 300, 1))[0, 0]
        scale, places = (1e-12, 3) if family[8] == 0 else (1e-12, 5)
        printed = [f"{value * 1e12 * scale:.{places}f}" for value in values]
        rows = [
            flops(f"r{i}", s, p) for i, (s, p) in enumerate(zip(schedules, printed, strict=True))
        ]
        assert contradictions(table(*rows)) == []
