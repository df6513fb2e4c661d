r"""Tables as people have them, CSV, Markdown or a LaTeX tabular, as a grid of texts.

Printed digits stay text. Lines `# key: value` in front of a CSV say what is known of the table; a
caption of LaTeX and text around a Markdown table are kept as `says`.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

from hardware_specs.errors import InvalidFileError

#: Rows and columns that no printed table has.
MOST_ROWS, MOST_COLUMNS = 2000, 60
_KEY = re.compile(r"\s*#\s*([\w ]+?)\s*:\s*(.*)")
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
#: LaTeX that says nothing about a number, and what it leaves.
_LATEX = (
    (r"(?<!\\)%.*", ""),
    (r"\\(?:toprule|midrule|bottomrule|hline|centering|small|footnotesize)\b", ""),
    (r"\\(?:cmidrule|cline)\s*(?:\([^)]*\))?\s*(?:\[[^\]]*\])?\{[^}]*\}", ""),
    (
        r"\\(?:(?:row|cell|text|arrayrule)?color|colorbox|label|[vh]space|scalebox|rotatebox|parbox)\*?"
        r"\s*(?:\[[^\]]*\])*\{[^}]*\}",
        "",
    ),
    (r"(?<=\d)(?:\{,\}|\\,)(?=\d{3})", ","),
    (r"\{,\}", ","),
    (r"\\multirow\s*\{[^}]*\}\s*(?:\[[^\]]*\])?\{[^}]*\}\s*\{", "{"),
    (r"\\(?:text\w*|math\w+|emph|underline|makecell|shortstack|mbox|scriptsize|tiny|bf|it)\b", ""),
    (r"\\(?:cite\w*|ref|footnote)\s*\{[^}]*\}", ""),
    (r"\\times", "x"),
    (r"\\pm\b", "\u00b1"),
    (r"\\downarrow", "\u2193"),
    (r"\\uparrow", "\u2191"),
    (r"\^?\s*\{?\\(?:dag|ddag|dagger|ddagger|star|ast)\b\}?", ""),
    (r"(?<!10)\^\s*(?:\{[^{}]*\}|\w|\*)", ""),  # a footnote's mark
    (r"\\([%#&_$])", r"\1"),
    (r"\\[,;:! ]", " "),
    (r"\\\w+", ""),
    (r"[{}$~]", " "),
)


#: Markdown around a number: footnotes with their text, emphasis, tags.
_MARKS = r"<sup>.*?</sup>|\[\^[^\]]*\]|\*\*|(?<!\d)\*|\*(?!\d)|__|`|<[^>]*>"


@dataclass(frozen=True, slots=True)
class Grid:
    """A heading and rows of texts, all of one width, and what is said around them."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    about: dict[str, str] = field(default_factory=dict)


def read_grid(text: str, name: str) -> Grid:
    r"""Return the table in a text.

    Raises:
        InvalidFileError: the text holds no table, or a larger one than anybody prints.

    >>> read_grid("| Method | FLOPs (T) |\n|---|---|\n| **FastV** | 4.9 |", "t").rows
    (('FastV', '4.9'),)
    """
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f\u2019'](?=\d{3}(?!\d))", ",", text)
    if "\\begin{tabular" in text:
        rows, about = _latex(text)
    elif any(_RULE.fullmatch(line.strip()) and "|" in line for line in text.splitlines()):
        rows, about = _markdown(text)
    else:
        rows, about = _csv(text, name)
    rows = [row for row in rows if any(cell for cell in row)]
    width = max((len(row) for row in rows), default=0)
    if len(rows) < 2 or width < 2:
        raise InvalidFileError(
            f"{name}: no table; give CSV, Markdown or a LaTeX tabular with a heading and rows"
        )
    if len(rows) > MOST_ROWS or width > MOST_COLUMNS:
        raise InvalidFileError(
            f"{name}: {len(rows)} rows of {width} columns; at most {MOST_ROWS} of {MOST_COLUMNS}"
        )
    padded = [(*row, *[""] * (width - len(row))) for row in rows]
    heading, *body = _one_heading([tuple(row) for row in padded])
    return Grid(heading, tuple(body), about)


def _one_heading(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Join a heading of two lines: a second row without any digit completes the first."""
    heading, *body = rows
    while len(body) > 1 and not any(re.search(r"\d", cell) for cell in body[0]):
        heading = tuple(
            top if low in ("", top) else f"{top} {low}".strip()
            for top, low in zip(heading, body[0], strict=True)
        )
        body = body[1:]
    return [heading, *body]


def _csv(text: str, name: str) -> tuple[list[list[str]], dict[str, str]]:
    about: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            match = _KEY.match(line)
            if match:
                about[match[1].lower()] = match[2].strip()
        elif line.strip():
            lines.append(line)
    if not lines:
        raise InvalidFileError(f"{name}: it is empty")
    mark = max(",;\t", key=lines[0].count)
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=mark))
    except csv.Error as error:
        raise InvalidFileError(f"{name}: no CSV ({error})") from None
    if mark == ";":
        # Where a comma separates no cells it may be the decimal one: 8,5.
        rows = [
            [re.sub(r"(?<![\d,.])(\d+),(?=\d+(?![\d,.]))", r"\1.", c) for c in row] for row in rows
        ]
    return [[cell.strip() for cell in row] for row in rows], about


def _markdown(text: str) -> tuple[list[list[str]], dict[str, str]]:
    about: dict[str, str] = {}
    rows, around = [], []
    for line in text.splitlines():
        match = _KEY.match(line)
        bare = line.strip()
        if _RULE.fullmatch(bare):
            continue
        if "|" in bare:
            cells = re.split(r"(?<!\\)\|", bare.strip("|"))
            rows.append([re.sub(_MARKS, "", cell).strip() for cell in cells])
        elif match:
            about[match[1].lower()] = match[2].strip()
        elif bare:
            around.append(bare)
    return rows, about | ({"says": " ".join(around)} if around else {})


def _latex(text: str) -> tuple[list[list[str]], dict[str, str]]:
    about = {}
    caption = re.search(r"\\caption\s*\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    if caption:
        about["says"] = _plain(caption[1])
    for line in text.splitlines():
        match = re.match(r"\s*%\s*(\w[\w ]*?)\s*:\s*(.*)", line)
        if match:
            about[match[1].lower()] = match[2].strip()
    body = _outer(re.split(r"\\begin\{tabular[*xy]?\}", text, maxsplit=1)[1])
    body = re.sub(r"(?<!\\)%.*", "", body)
    body = re.sub(r"\\(?:makecell|shortstack)\s*(?:\[[^\]]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}",
                  lambda found: found[1].replace("\\\\", " "), body)  # fmt: skip
    rows = []
    for line in re.split(r"\\\\(?:\s*\[[^\]]*\])?|\\tabularnewline", body):
        cells: list[str] = []
        for cell in re.split(r"(?<!\\)&", line):
            several = re.search(r"\\multicolumn\s*\{(\d+)\}\s*\{[^}]*\}", cell)
            cells.append(_plain(cell.replace(several[0], "") if several else cell))
            if several:
                # A heading over several columns is the heading of each.
                cells += [cells[-1]] * (min(int(several[1]), MOST_COLUMNS) - 1)
        rows.append(cells)
    # A row that only continues a \multirow leaves its first cells empty.
    return rows, about


def _outer(text: str) -> str:
    """Return what stands between the beginning and the end of a tabular, one inside a cell on one line."""
    for _ in range(MOST_ROWS):
        head, end, tail = text.partition("\\end{tabular")
        before, begin, inside = head.rpartition("\\begin{tabular}")
        if not begin or not end:
            return _behind_options(head)
        inside = re.sub(r"\\\\|(?<!\\)&", " ", _behind_options(inside))
        text = before + inside + tail.partition("}")[2]
    raise InvalidFileError("more tables inside cells than anybody prints")


def _behind_options(text: str) -> str:
    r"""Return a text without the brackets and braces that it begins with: of the options nothing is a cell.

    >>> _behind_options(r"[t]{l *{3}{>{\centering}X}} Method & FLOPs")
    ' Method & FLOPs'
    """
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}")
        if depth == 0 and letter not in "]}" and not letter.isspace():
            return text[place - 1 :] if place and text[place - 1].isspace() else text[place:]
    return ""


def _plain(text: str) -> str:
    for pattern, left in _LATEX:
        text = re.sub(pattern, left, text)
    return re.sub(r"(?<=\() | (?=[)%])", "", " ".join(text.split()))
