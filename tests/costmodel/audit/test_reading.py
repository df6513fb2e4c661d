"""A table is read alike from CSV, Markdown and LaTeX, its digits kept, its columns found."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from costmodel.audits.columns import role_of
from costmodel.audits.reading import read_grid
from costmodel.audits.rows import table_of
from costmodel.audits.table import Span, parse_schedule
from hardware_specs.errors import InvalidFileError, InvalidInputError, UnknownNameError

TABLES = sorted((Path(__file__).parent / "tables").glob("*.csv"))
CSV = """# hardware: A100
Method,Tokens,FLOPs (T),KV cache (MB),Latency (ms)
Vanilla,576,8.50,288.0,55.1
VisionZip,64,1.80,32.0,20.0
"""
MARKDOWN = """
| Method | Tokens | FLOPs (T) | KV cache (MB) | Latency (ms) |
|:---|---:|---|---|---|
| **Vanilla** | 576 | 8.50 | 288.0 | 55.1 |
| VisionZip | 64 | 1.80 | 32.0 | 20.0 |
"""
LATEX = r"""
\begin{tabular}{@{}l|cccc@{}}
\toprule
Method & Tokens & FLOPs (T)$\downarrow$ & KV cache (MB) & Latency (ms) \\ \midrule
\textbf{Vanilla} & 576 & 8.50 & 288.0 & 55.1 \\
\rowcolor{gray!20} VisionZip~\cite{zip} & 64 & $1.80$ & 32.0 & \textbf{20.0} % measured
\\ \bottomrule
\end{tabular}
"""


def cells(text, **options):
    return table_of(read_grid(text, "t"), "t", **{"model": "llava-1.5-7b"} | options).cells


def facts(text, **options):
    return [
        (
            c.quantity,
            c.printed,
            c.scale,
            c.ratio,
            c.schedule and c.schedule.text,
            c.row.split(" (")[0],
        )
        for c in cells(text, **options)
    ]


def test_three_formats_give_the_same_cells_and_keep_their_digits():
    found = facts(CSV)
    assert found[0] == ("flops", "8.50", 1e12, "", "0:V", "Vanilla")
    assert ("kv_cache", "32.0", 1e6, "", "0:64", "VisionZip") in found
    assert facts(MARKDOWN) == facts(LATEX) == found


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_published_table_is_the_same_in_every_format(path):
    # A star is emphasis in Markdown.
    text = path.read_text(encoding="utf-8").replace("*", "")
    about = [line[2:] for line in text.splitlines() if line.startswith("#")]
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    markdown = [*(f"# {line}" for line in about), *(f"| {' | '.join(row)} |" for row in rows)]
    markdown.insert(len(about) + 1, "|---" * len(rows[0]) + "|")
    escaped = [[re.sub(r"([%&#_])", r"\\\1", cell) for cell in row] for row in rows]
    latex = [*(f"% {line}" for line in about), r"\begin{tabular}{llllllll}"]
    latex += [" & ".join(row) + r" \\" for row in escaped] + [r"\end{tabular}"]
    as_csv = table_of(read_grid(text, "t"), "t")
    assert table_of(read_grid("\n".join(markdown), "t"), "t") == as_csv
    assert table_of(read_grid("\n".join(latex), "t"), "t") == as_csv


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("FLOPs (TB)", ("flops", 1e12, "")),
        ("TFLOPs", ("flops", 1e12, "")),
        ("MACs [G]", ("flops", 1e9, "")),
        ("FLOPs Ratio (%)", ("flops", 0.01, "share")),
        ("FLOPs reduction (%)", ("flops", 0.01, "saved")),
        ("TFLOPs (Rel.)", ("flops", 1e12, "")),
        ("KV Cache (MiB)", ("kv_cache", 2.0**20, "")),
        ("GPU Mem. (GB)", ("memory", 1e9, "")),
        ("TTFT (s)", ("time", 1.0, "")),
        ("Prefill time (ms)", ("time", 1e-3, "")),
        ("Latency speed-up", ("time", None, "times")),
        ("Throughput (tokens/s)", ("rate", 1.0, "")),
        ("Storing Activation (GB)", ("activation", 1e9, "")),
    ],
)
def test_columns_are_found_by_name_and_unit(heading, expected):
    role = role_of(heading)
    assert (role.name, role.scale, role.ratio) == expected


@pytest.mark.parametrize("heading", ["POPE", "Text tokens", "MMMU", "Params (B)", "Model size"])
def test_other_columns_are_none(heading):
    assert role_of(heading) is None


def test_columns_can_be_named():
    text = "Method,Tokens,Cost\nVanilla,576,8.5\n"
    with pytest.raises(InvalidFileError, match="--column"):
        cells(text)
    assert facts(text, columns={"Cost": "flops T"})[0][:3] == ("flops", "8.5", 1e12)
    with pytest.raises(InvalidInputError, match="cannot be 'flop'; there is"):
        cells(text, columns={"Cost": "flop T"})


def test_a_number_may_carry_its_ratio_and_unit():
    found = facts("Method,Tokens,FLOPs\nVanilla,576,8.5T (100%)\nZip,64,1.8T / 21%\n")
    assert found[1:] == [
        ("flops", "100", 0.01, "share", "0:V", "Vanilla"),
        ("flops", "1.8", 1e12, "", "0:64", "Zip"),
        ("flops", "21", 0.01, "share", "0:64", "Zip"),
    ]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("3.30$_{\\downarrow 58.9\\%}$", [("3.30", 1e12, ""), ("58.9", 0.01, "saved")]),
        ("3.3 ($-$58.9\\%)", [("3.3", 1e12, ""), ("58.9", 0.01, "saved")]),
        (r"\textbf{3.3} (41\%)", [("3.3", 1e12, ""), ("41", 0.01, "share")]),
        (r"3.3 (2.4$\times$)", [("3.3", 1e12, ""), ("2.4", 1.0, "times")]),
        (r"$3.3 \pm 0.1$", [("3.3", 1e12, "")]),
        (r"3.3$^{\dagger}$", [("3.3", 1e12, "")]),
        ("3.3$^1$", [("3.3", 1e12, "")]),
        (r"3.3 (+66\%)", [("3.3", 1e12, "")]),
        ("3.3 [12]", [("3.3", 1e12, "")]),
        (r"$3.3\times10^{12}$", [("3.3", 1e24, "")]),
        ("8,177.3", [("8177.3", 1e12, "")]),
        ("8{,}177.3", [("8177.3", 1e12, "")]),
        (r"8\,177", [("8177", 1e12, "")]),
        ("8\u2009177", [("8177", 1e12, "")]),
        ("8{,}5", [("8.5", 1e12, "")]),
        (r"\textcolor{red}{3.3}", [("3.3", 1e12, "")]),
        (r"\scalebox{0.8}{3.3}", [("3.3", 1e12, "")]),
        (r"3.3 (42\% $\downarrow$)", [("3.3", 1e12, ""), ("42", 0.01, "saved")]),
        ("--", []),
        ("n/a", []),
    ],
)
def test_what_stands_around_a_number(cell, expected):
    """An arrow in the heading says which way is better, one in the cell that something was saved."""
    text = r"\begin{tabular}{lcc} Method & Tokens & FLOPs (T) $\downarrow$ \\ V & 576 & 8.5 \\ Zip & 64 & "
    found = [fact[1:4] for fact in facts(text + cell + r" \\ Pro & 1 & 1 \end{tabular}")[1:-1]]
    assert found == [(printed, pytest.approx(scale), ratio) for printed, scale, ratio in expected]


def test_numbers_with_their_powers_and_decimal_commas():
    found = facts("Method,Tokens,FLOPs\nVanilla,576,8.5e12\nZip,64,1.8 x 10^12\nPro,32,9*10^11\n")
    assert [fact[1:3] for fact in found] == [("8.5", 1e12), ("1.8", 1e12), ("9", 1e11)]
    assert facts("Method;Tokens;Cache\nVanilla;576;0,302 GB\n")[0][1] == "0.302"
    found = facts("Method;Tokens;FLOPs (T)\nVanilla;576;8,50\nZip;64;1,8\n")
    assert [fact[1] for fact in found] == ["8.50", "1.8"]


@pytest.mark.parametrize(
    ("said", "precision"),
    [("8bit", "w8a8"), ("INT8", "w8a8"), ("4-bit", "w4a16"), ("FP8", "fp8"), ("", "fp16")],
)
def test_a_bit_width_as_people_write_it(said, precision):
    text = f"Method,Tokens,Precision,FLOPs (T)\nV,576,{said},8.5\n"
    assert [cell.precision for cell in cells(text)] == [precision]


def test_rules_of_one_dash_and_footnotes_of_markdown():
    text = "| Method | Tokens | FLOPs (T) |\n|:-|-|:-:|\n| V | 576 | 8.5<sup>1</sup> |\n"
    text += "| Zip | 64[^2] | 1.8[^1] |\n"
    assert [fact[1] for fact in facts(text)] == ["8.5", "1.8"]
    assert facts(text)[1][4] == "0:64"


def test_a_table_with_its_quantities_as_rows_is_turned():
    text = "| | Vanilla | Zip |\n|---|---|---|\n| Tokens | 576 | 64 |\n| FLOPs (T) | 8.5 | 1.8 |\n"
    upright = (
        "| | Tokens | FLOPs (T) |\n|---|---|---|\n| Vanilla | 576 | 8.5 |\n| Zip | 64 | 1.8 |\n"
    )
    assert facts(text) == facts(upright)
    assert facts(text)[1] == ("flops", "1.8", 1e12, "", "0:64", "Zip")


def test_a_method_that_spans_rows():
    text = r"\begin{tabular}{lll} Method & Tokens & TFLOPs \\ Vanilla & 576 & 8.5 \\"
    text += r" \multirow{2}{*}{FastV} & 128 & 2.5 \\ & 64 & 1.9 \end{tabular}"
    found = facts(text)
    assert [fact[4:] for fact in found[1:]] == [("0:V;2:128", "FastV"), ("0:V;2:64", "FastV")]


def test_a_heading_over_the_settings_of_a_method():
    """The layer and the pruned share are columns under it, and the baseline spans both."""
    text = r"""\begin{tabular}{lcc|cc}
    \multirow{2}{*}{Model} & \multicolumn{2}{c|}{FastV Settings} & FLOPs & FLOPs Ratio \\
     & $K$ & $R$ & & \\ \hline
    \multirow{2}{*}{LLaVA-1.5-7B} & \multicolumn{2}{c|}{Baseline} & 99.3B & 100\% \\
     & 2 & 90\% & 19.9B & 20\% \\ \end{tabular}"""
    found = cells(text, model=None)
    assert [(c.schedule.text, c.schedule.kind, c.printed, c.scale) for c in found] == [
        ("0:V", "stated", "99.3", 1e9), ("0:V", "stated", "100", 0.01),
        ("0:V;2:0.1V", "stated", "19.9", 1e9), ("0:V;2:0.1V", "stated", "20", 0.01),
    ]  # fmt: skip
    assert found[3].base == found[0].row


def test_columns_for_each_model_are_rows_of_it():
    text = r"""\begin{tabular}{l|cc|cc}
    \multirow{2}{*}{Method} & \multicolumn{2}{c|}{LLaVA-1.5-7B} & \multicolumn{2}{c}{LLaVA-NeXT-7B} \\
     & Tokens & TFLOPs & Tokens & TFLOPs \\
    Vanilla & 576 & 8.2 & 2{,}880 & 42.7 \\ \multicolumn{5}{c}{\textit{Pruned}} \\
    VisionZip & 64 & 1.3 & 320 & 4.7 \\ \end{tabular}"""
    assert [(c.model, c.schedule.uniform, c.printed) for c in cells(text, model=None)] == [
        ("llava-1.5-7b", 576, "8.2"), ("llava-next-vicuna-7b", 2880, "42.7"),
        ("llava-1.5-7b", 64, "1.3"), ("llava-next-vicuna-7b", 320, "4.7"),
    ]  # fmt: skip


def test_a_row_named_as_a_model_is_the_model_s_own():
    """Its tokens are the full ones, here of a picture's tiles, and the rows below are of it."""
    text = "Method,Tokens,TFLOPs\nLLaVA-NeXT-7B,2520,37\nVisionZip,320,4.7\nLLaVA-1.5-13B,576,16\n"
    found = cells(text, model=None)
    assert [(c.model, c.schedule.text, c.schedule.full) for c in found] == [
        ("llava-next-vicuna-7b", "0:V", 2520), ("llava-next-vicuna-7b", "0:320", 2520),
        ("llava-1.5-13b", "0:V", 576),
    ]  # fmt: skip
    named = cells("Method,Tokens,TFLOPs\nLLaVA-1.5,576,16\n", model="llava-1.5-13b")
    assert named[0].model == "llava-1.5-13b"


def test_tokens_of_each_frame():
    text = "Method,Frames,Tokens/frame,TFLOPs\nVanilla,32,196,48\nFastVID,32,19,3.3\n"
    found = cells(text, model="llava-onevision-7b")
    # FastVID is no FastV, which would see all tokens in its first layers.
    assert [c.schedule.uniform for c in found] == [6272, 608]


@pytest.mark.parametrize(
    ("base", "row", "kept"), [("100%", "10%", "0:0.10V"), ("0", "0.9", "0:0.1V")]
)
def test_a_ratio_in_front_of_all_quantities_is_of_tokens(base, row, kept):
    """Kept where the baseline has all of it, pruned where it has none; the reader may say otherwise."""
    text = f"Method,Ratio,TFLOPs\nVanilla,{base},8.5\nZip,{row},1.2\n"
    assert [fact[1:5:3] for fact in facts(text)][1] == ("1.2", kept)
    named = facts(text, columns={"Ratio": "flops %"})
    assert named[-2][1] == row.removesuffix("%")


def test_a_table_inside_a_cell_and_options_of_columns():
    text = r"""\begin{tabularx}{\linewidth}{l *{2}{>{\centering\arraybackslash}X}}
    Method & \begin{tabular}[c]{@{}c@{}}Visual\\tokens\end{tabular} & TFLOPs \\
    Vanilla & 576 & 8.5 \\ \end{tabularx}"""
    assert read_grid(text, "t").heading == ("Method", "Visual tokens", "TFLOPs")
    deep = r"\begin{tabular}{l}" * 2500 + r"\end{tabular}" * 2500
    with pytest.raises(InvalidFileError):
        read_grid(deep, "t")


def test_the_one_model_of_a_caption_is_the_table_s():
    rows = "\n\n| Method | Tokens | TFLOPs |\n|---|---|---|\n| Vanilla | 576 | 16 |\n"
    assert cells(f"Costs of LLaVA-1.5 13B on A100.{rows}", model=None)[0].model == "llava-1.5-13b"
    with pytest.raises(InvalidFileError, match="--model"):
        cells(f"LLaVA-1.5-7B and LLaVA-1.5-13B{rows}", model=None)


def test_sections_of_a_table_give_the_tokens_of_their_rows():
    found = facts(
        "| Method | FLOPs (T) | POPE |\n|---|---|---|\n| Upper bound, 576 tokens | | |\n"
        "| LLaVA | 8.5 | 86 |\n| Retain 64 tokens | | |\n| Zip | 1.8 | 80 |\n"
    )
    assert [fact[4] for fact in found] == ["0:V", "0:64"]


def test_tokens_as_people_write_them():
    for tokens, expected in (
        ("64 (11.1%)", "0:64"), ("11.1%", "0:0.111V"), ("0.5", "0:0.5V"), ("1,152", "0:1152"),
    ):  # fmt: skip
        text = f"| Method | Tokens | TFLOPs |\n|---|---|---|\n| V | 576 | 8.5 |\n| Zip | {tokens} | 1.8 |"
        assert facts(text)[1][4] == expected
    text = (
        "| Method | TFLOPs | POPE |\n|---|---|---|\n| V | 8.5 | 8 |\n| Averaged 64 Tokens | | |\n"
    )
    text += "| Z | 1 | 8 |"
    assert facts(text)[1][4] == "mean:64"


def test_a_model_that_spans_rows():
    text = r"\begin{tabular}{lll} Model & Tokens & TFLOPs \\ \multirow{2}{*}{LLaVA-1.5-7B} & 576 & 8.5 \\"
    found = cells(text + r" & 64 & 1.8 \\ LLaVA-1.5-13B & 576 & 16.6 \end{tabular}", model=None)
    assert [cell.model for cell in found] == ["llava-1.5-7b", "llava-1.5-7b", "llava-1.5-13b"]


def test_a_model_that_is_not_known_loses_its_rows_alone():
    text = "Model,Tokens,TFLOPs\nllava-1.5-7b,576,8.5\nmystery-9b,576,8.5\n"
    table = table_of(read_grid(text, "t"), "t")
    assert len(table.cells) == 1
    assert "mystery-9b" in table.remarks[0]


def test_a_default_layer_is_said_and_marked():
    text = "Method,Tokens,K,FLOPs (T)\nVanilla,576,,8.5\nFastV,128,,2.5\nFastV,128,3,2.6\n"
    table = table_of(read_grid(text, "t"), "t", model="llava-1.5-7b")
    assert [(c.schedule.text, c.schedule.kind) for c in table.cells[1:]] == [
        ("0:V;2:128", "default"),
        ("0:V;3:128", "stated"),
    ]
    assert table.remarks == ("fastv acts at layer 2, its default: the table states no layer",)


def test_a_method_without_a_default_layer_is_inferred():
    text = "Method,Tokens,FLOPs (T)\nVanilla,576,8.5\nPyramidDrop,128,2.5\n"
    table = table_of(read_grid(text, "t"), "t", model="llava-1.5-7b")
    assert table.cells[1].schedule.kind == "inferred"
    assert "which is no evidence" in table.remarks[0]


def test_settings_in_a_row_s_name():
    text = "Method,FLOPs (T)\nVanilla,8.5\nFastV (K=3 R=75%),2.6\nVTW K=16,4.7\nOurs,3.0\n"
    text += "+ FastV (K = 3),2.6\nLLaVA w/ FastV (K=2 R=50%),5\n"
    expected = ["0:V", "0:V;3:0.25V", "0:V;16:0", None, None, "0:V;2:0.5V"]
    assert [fact[4] for fact in facts(text)] == expected


def test_schedules():
    assert parse_schedule("unknown", 576) is None
    late = parse_schedule("0:V;2:0.1V", 576)
    assert late.spans(32, shift=-1, rounding="floor") == [Span(1, 576, False), Span(31, 57, False)]
    assert parse_schedule("0:V;13:frozen", 576).spans(32)[1] == Span(19, 576, True)
    # 9.7 % of 32 frames of 196 tokens, frame by frame: 19 each.
    assert parse_schedule("0:0.097V", 6272, 32).spans(28, rounding="frame")[0].tokens == 608
    assert parse_schedule("mean:64", 576).spans(32, label=1) == [Span(32, 64.5, False)]


@pytest.mark.parametrize(
    "text", ["2:64", "0:64;0:32", "0:x", "0:", "0:V;3:64;2:32", "0:9999999999"]
)
def test_no_schedule(text):
    with pytest.raises(InvalidFileError):
        parse_schedule(text, 576)


@pytest.mark.parametrize(
    "text", ["", "words", "a,b\n", "| a |\n|---|\n", r"\begin{tabular}{c} a \\ \end{tabular}"]
)
def test_no_table(text):
    with pytest.raises(InvalidFileError):
        read_grid(text, "t")


def test_a_model_must_be_named_and_known():
    with pytest.raises(InvalidFileError, match="--model"):
        cells(CSV, model=None)
    with pytest.raises(UnknownNameError, match=r"llava-1\.5-7b"):
        cells(CSV, model="llava-1.5-7")
