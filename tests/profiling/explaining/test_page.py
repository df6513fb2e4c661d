"""docs/explain.md: its commands run, and its table is what the traces say today.

Run as a program it writes the table again: `python tests/profiling/explaining/test_page.py`.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fakes")]

from public_traces import FOLDER, TRACES, explained  # noqa: E402 - after the path is set

from vlm_roofline.cli import main  # noqa: E402

PAGE = ROOT / "docs" / "explain.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
HEAD = (
    "| trace | class | kernels | measured | roofline | predicted | predicted / measured | not explained |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
SHOWN = {
    "h100_qwen1.5_0.5b": "Qwen1.5-0.5B, 16 x 559",
    "h100_vit_b16": "ViT-B/16, 4 pictures",
    "h100_bert_small": "BERT-small, 1 x 141",
}
#: The calibration may be fitted anew before the table is: how far the ratio may be from what is printed.
DRIFT = 0.15


def _rows() -> Iterator[tuple[str, ...]]:
    for trace, shown in SHOWN.items():
        found = explained(trace)
        measured = predicted = 0.0
        for row in found.by_class():
            if row["priced_s"]:
                measured += row["priced_s"]
                predicted += row["predicted_s"]
            yield (shown, row["op_class"], str(row["kernels"]), *_numbers(
                row["time_s"], row["ideal_s"] or None, row["predicted_s"] if row["priced_s"] else None
            ))  # fmt: skip
        if found.unlinked_time_s:
            yield (shown, "linked to no op", "436", *_numbers(found.unlinked_time_s, None, None))
        yield (shown, "all that is priced", "", *_numbers(measured, None, predicted))


def _numbers(measured: float, ideal: float | None, predicted: float | None) -> tuple[str, ...]:
    return (
        f"{measured * 1e6:,.1f}",
        "-" if ideal is None else f"{ideal * 1e6:,.1f}",
        "-" if predicted is None else f"{predicted * 1e6:,.1f}",
        "-" if predicted is None else f"{predicted / measured:.2f}",
        f"{(measured - (predicted or 0.0)) * 1e6:+,.1f}",
    )


def _written() -> list[list[str]]:
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_is_what_the_traces_say() -> None:
    for written, row in zip(_written(), _rows(), strict=True):
        assert written[:4] == list(row[:4])
        if row[6] == "-":
            assert written[6] == "-"
        else:
            assert float(written[6]) == pytest.approx(float(row[6]), abs=DRIFT), row[:2]


def test_the_prose_quotes_the_traces() -> None:
    prose = " ".join(PAGE.read_text(encoding="utf-8").split())
    qwen, vit, bert = (explained(name) for name in SHOWN)
    share = qwen.unlinked_time_s / qwen.kernel_time_s
    assert f"{share:.0%}".replace("%", " %") + " of its device time is linked to no op" in prose
    (conv,) = (call for call in vit._calls if call.op_class == "conv")
    assert len(conv.works) == 6
    # 2 m n k of the patches, over the time of the product among the six.
    rate = 2 * 4 * 196 * 768 * 768 / (max(work.length_us for work in conv.works) * 1e-6)
    assert 0.005 < rate / 989e12 < 0.025
    assert any("cutlass_80" in op.kernel for op in vit.ops)
    assert any(family.name.endswith("unaligned") for family in bert.families)


LINES = re.findall(r"^ {4}vlm-roofline (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_commands_run(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("run.json.gz", "before.json.gz", "after.json.gz"):
        shutil.copy(TRACES["h100_qwen1.5_0.5b"], word)
    results = FOLDER.parent / "results"
    shutil.copy(results / "optimum_full_report.csv", "full_report.csv")
    assert main(line.split()) == 0, capsys.readouterr().err


def test_there_are_commands() -> None:
    assert len(LINES) == 6


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    start, rest = text.split(BEGIN)
    made = HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows())
    PAGE.write_text(start + BEGIN + made + END + rest.split(END)[1], encoding="utf-8")
