"""The page "Audit a table" says what the program does: its tables are made here and compared.

python tests/costmodel/audit/test_audit_page.py     writes them again
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from costmodel.audits import assumptions, audit
from costmodel.audits.reading import read_grid
from costmodel.audits.rows import table_of
from costmodel.audits.search import altered
from costmodel.reproduce.digits import decimals
from costmodel.reproduce.papers import PAPERS

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"
TABLES = sorted((Path(__file__).parent / "tables").glob("*.csv"))
REPRODUCED = (*sorted(PAPERS), "prumerge-table2")
#: Values of a choice that a reader takes for granted.
USUAL = {"not counted", "total", "text and visual tokens", "as stated", "exact", "not rounded",
         "not modelled (K and V are d x d)", "1000s (MB)", "not rounded before"}  # fmt: skip
_FOUND = {}


def found(name):
    """One audit of each table, as a user gets it."""
    if name not in _FOUND:
        path = {each.stem: each for each in TABLES}.get(name, name)
        _FOUND[name] = audit(path)
    return _FOUND[name]


def space():
    lines = ["| assumption | values |", "|---|---|"]
    choices = {name: list(values.values()) for name, values in assumptions.CHOICES.items()}
    choices["text_tokens"] = ["the stated length first, then every length from 0 to 512"]
    for name, values in choices.items():
        lines.append(f"| {name.replace('_', ' ')} | {'; '.join(values)} |")
    return "\n".join(lines)


def best(result):
    parts = []
    for kind, family in result.assumptions.items():
        said = []
        for name, value in family.items():
            if name in ("digits", "text_stated") or str(value) in USUAL:
                continue
            if isinstance(value, list):
                value = f"{value[0]} to {value[1]}"
            if isinstance(value, dict):
                value = ", ".join(f"{key}: {length}" for key, length in value.items())
            said.append(
                f"{name.replace('_', ' ')} {str(value).split(':')[0] if name == 'labels' else value}"
            )
        parts.append(f"{kind.replace('_', ' ')}: {', '.join(said)}" if len(result.assumptions) > 1
                     else ", ".join(said))  # fmt: skip
    return "; ".join(parts)


def results():
    lines = ["| table | verdict | printed | copies: mean, most | p | rivals | best set |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name in (*(path.stem for path in TABLES), *REPRODUCED):
        a = found(name)
        rivals = len(a.rivals) + sum(
            int(re.match(r"\d+", note)[0]) for note in a.remarks if "more families" in note
        )
        lines.append(
            f"| {name} | {a.verdict} | {a.matched} of {a.cells} | {'' if a.copies['exact'] else 'below '}"
            f"{a.copies['mean']:.1f}, "
            f"{a.copies['most']} | {a.p_value:.3f} | {rivals} | {best(a) or '-'} |"
        )
    return "\n".join(lines)


def against():
    lines = []
    for name in (*(path.stem for path in TABLES), *REPRODUCED):
        a = found(name)
        said = [f"{each['kind']}: {each['text']}" for each in a.contradictions]
        said += [f"impossible: {each['text']}" for each in a.impossible]
        lines += [f"- {name}, {text}" for text in said]
    return "\n".join(lines)


PARTS = {"space": space, "results": results, "against": against}


def written(text, part):
    return text.split(f"<!-- {part} -->\n")[1].split("<!-- end -->")[0].strip()


@pytest.mark.parametrize("part", PARTS)
def test_the_page_is_what_the_program_says(part):
    assert written(PAGE.read_text(encoding="utf-8"), part) == PARTS[part]()


def test_prumerge_is_explained_at_700_and_70_tokens_with_its_32nd_cell_named():
    a = found("prumerge-table2")
    assert (a.verdict, a.matched, a.cells) == ("explained", 31, 31)
    lengths = a.assumptions["tool"]["sequence_lengths"]
    assert lengths == {"576 visual": 700, "40 visual": 70}
    (named,) = a.left_out
    assert named["cell"] == "PruMerge, flops 0.28 T"
    assert "contradict" in named["why"]
    (said,) = a.contradictions
    assert "0.91 in fp16 and 0.28 in w4a16" in said["text"]


def test_a_computed_latency_below_the_device_s_peak_is_impossible():
    (found_,) = found("m3_table").impossible
    assert (found_["printed"], round(found_["floor"], 1)) == ("58.1", 63.6)


@pytest.mark.parametrize("name", [*(path.stem for path in TABLES), *REPRODUCED])
def test_altered_copies_are_not_explained(name):
    """A copy is called explained only where every cell of it is printed: of at most one in a hundred.

    One number with a free text length is always printed, and is never called explained.
    """
    a = found(name)
    assert a.copies["copies"] == 999
    if a.cells == 1:
        assert a.verdict == "explained, not identified"
    elif a.matched < a.cells:
        assert a.copies["most"] < a.cells
    else:
        assert a.p_value <= 0.01


@pytest.mark.parametrize("name", ["nafees_vqav2", "fastvid_ov"])
def test_altered_copies_of_explained_tables_come_out_so(name):
    """Five copies of either, each with a null test of its own."""
    published = found_table(name)
    digits = altered(published.cells, 5, seed=3)
    for copy in digits:
        cells = tuple(
            replace(cell, printed=f"{number * cell.step:.{decimals(cell.printed)}f}")
            for cell, number in zip(published.cells, copy, strict=True)
        )
        verdict = audit(replace(published, cells=cells), copies=199).verdict
        assert verdict in ("not explained", "explained, not identified")


def found_table(name):
    text = next(each for each in TABLES if each.stem == name).read_text(encoding="utf-8")
    return table_of(read_grid(text, name), name)


def main():
    text = PAGE.read_text(encoding="utf-8")
    for part, make in PARTS.items():
        before, after = text.split(f"<!-- {part} -->\n")
        text = (
            f"{before}<!-- {part} -->\n\n{make()}\n\n<!-- end -->"
            + after.split("<!-- end -->", 1)[1]
        )
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
