"""Table 2 of PruMerge, cell by cell. Nothing recomputed is written down here but its verdict."""

from __future__ import annotations

import pytest

from costmodel.reproduce import reproduce

#: The cells as printed, in the order of the paper: FLOPs, prefill time, total memory, activation.
PRINTED = {
    "7b-FP16-LLaVA-1.5": ("9.3", "88.6", "23.3", "4.60"),
    "7b-FP16-PruMerge": ("0.91", "15.3", "13.7", "0.28"),
    "7b-INT4-LLaVA-1.5": ("2.3", "151.6", "5.9", "1.20"),
    "7b-INT4-PruMerge": ("0.28", "14.9", "3.5", "0.07"),
    "13b-FP16-LLaVA-1.5": ("18.2", "170.5", "41.6", "7.30"),
    "13b-FP16-PruMerge": ("1.80", "29.5", "26.6", "0.44"),
    "13b-INT4-LLaVA-1.5": ("4.6", "294.9", "10.5", "1.80"),
    "13b-INT4-PruMerge": ("0.45", "29.0", "6.8", "0.11"),
}
QUANTITIES = ("flops", "prefill_time", "total_memory", "storing_activation")
CELLS = {
    f"{row}-{quantity}": published
    for row, cells in PRINTED.items()
    for quantity, published in zip(QUANTITIES, cells, strict=True)
}
NEVER_FITS = "7b-INT4-PruMerge-flops"


@pytest.fixture(scope="module")
def table():
    return reproduce("prumerge-table2")


@pytest.fixture(scope="module")
def cells(table):
    return {row["cell"]: row for row in table.rows}


def test_all_cells_are_there(cells):
    assert list(cells) == list(CELLS)


@pytest.mark.parametrize("cell", CELLS)
def test_cell(cells, cell):
    row = cells[cell]
    assert row["published"] == CELLS[cell]
    places = len(CELLS[cell].partition(".")[2])
    # The page rounded first; then the paper rounds to its own digits, halves up.
    printed = f"{int(row['page_value'] * 10**places + 0.5 + 1e-9) / 10**places:.{places}f}"
    assert (printed == row["published"]) == (cell != NEVER_FITS)
    assert row["verdict"] == ("differs" if cell == NEVER_FITS else "same digits")
    assert abs(row["page_value"] / row["recomputed"] - 1) < 0.034


def test_31_of_32(table):
    assert table.summary["cells"] == 32
    assert table.summary["printed_digits_reproduced"] == 31
    assert table.summary["not_reproduced"] == [NEVER_FITS]
    assert "copying slip" in {row["cell"]: row["note"] for row in table.rows}[NEVER_FITS]


def test_the_lengths_used_are_the_only_ones_that_fit_all_cells(cells):
    for row, length in (("LLaVA-1.5", 700), ("PruMerge", 70)):
        ranges = [
            (cell["printed_by_first"], cell["printed_by_last"])
            for cell in cells.values()
            if cell["row"] == row and cell["cell"] != NEVER_FITS
        ]
        assert max(first for first, _ in ranges) == length == min(last for _, last in ranges)


def test_baseline_times_and_int4_reduced_times_admit_one_length(cells):
    for model in ("7b", "13b"):
        for cell, length in (
            ("FP16-LLaVA-1.5", 700),
            ("INT4-LLaVA-1.5", 700),
            ("INT4-PruMerge", 70),
        ):
            row = cells[f"{model}-{cell}-prefill_time"]
            assert (row["printed_by_first"], row["printed_by_last"]) == (length, length)
            assert row["printed_by"] == str(length)


def test_the_odd_cell_would_take_lengths_its_neighbours_exclude(cells):
    odd = cells[NEVER_FITS]
    assert (odd["printed_by_first"], odd["printed_by_last"]) == (81, 88)
    assert cells["7b-INT4-PruMerge-prefill_time"]["printed_by_last"] < odd["printed_by_first"]


def test_ranges_hold_their_ends_and_not_what_lies_beyond(cells, table):
    from costmodel.conventions import get_convention
    from costmodel.models import load_model
    from costmodel.reproduce.digits import page_value, prints_as

    row = cells["7b-FP16-LLaVA-1.5-total_memory"]
    first, last = row["printed_by_first"], row["printed_by_last"]
    for length in (first - 1, first, last, last + 1):
        moved = get_convention(table.summary["convention"]).evaluate(
            load_model("llama-2-7b"), hardware="nvidia_V100", visual_tokens=length, text_tokens=0
        )
        prints = prints_as(page_value(moved.totals.hbm_bytes) / 1e9, row["published"])
        assert prints == (first <= length <= last)


def test_the_stated_lengths_do_not_give_the_table(cells):
    fits = [row for row in cells.values() if row["published_over_stated"] == 0]
    assert not fits
    deviations = [abs(row["published_over_stated"]) for row in cells.values()]
    assert sum(deviations) / 32 == pytest.approx(0.1098, abs=1e-4)
    assert max(deviations) == pytest.approx(0.2385, abs=1e-4)


def test_reductions_shrink_at_the_stated_lengths(table):
    reductions = {
        (row["model"], row["precision"], row["quantity"]): row
        for row in table.summary["reductions"]
    }
    flops = reductions["Vicuna-7B", "FP16", "FLOPs (TB)"]
    assert round(flops["published"], 1) == 10.2
    assert round(flops["recomputed"], 1) == 10.3
    assert round(flops["stated"], 1) == 7.9
    time = reductions["Vicuna-7B", "FP16", "Prefill time"]
    assert (round(time["published"], 1), round(time["stated"], 1)) == (5.8, 5.0)
    # With vision tower and projector, which a pruned prompt still pays for.
    assert 5.8 < flops["corrected"] < 6.1


def test_corrected_column_is_this_projects_estimate(cells):
    # LLaVA-1.5-7B at 576 + 40: vision 381,918,216,192, projector 24,159,191,040, language model and
    # head 8,177,645,518,848; FLOPs do not scale with bits.
    for precision in ("FP16", "INT4"):
        row = cells[f"7b-{precision}-LLaVA-1.5-flops"]
        assert row["corrected"] == pytest.approx(8.58372292608, rel=1e-12)
    # 4-bit weights in FP16 arithmetic make the prefill no faster where it is bound by arithmetic.
    fp16, int4 = (cells[f"7b-{p}-LLaVA-1.5-prefill_time"]["corrected"] for p in ("FP16", "INT4"))
    assert int4 == pytest.approx(fp16, rel=0.02)
    # 13B in FP16 needs 26.7 GB of weights; 41.6 is what moves.
    assert 27 < cells["13b-FP16-LLaVA-1.5-total_memory"]["corrected_footprint_gb"] < 32


def test_false_digits_are_pointed_out(cells):
    padded = {cell for cell, row in cells.items() if "no digit" in (row["note"] or "")}
    assert padded == {
        cell for cell, text in CELLS.items() if text in ("4.60", "1.20", "7.30", "1.80")
    }
