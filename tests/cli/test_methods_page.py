"""The table of the page "Methods" is made from what the methods say of themselves.

python tests/cli/test_methods_page.py     writes it again
"""

from __future__ import annotations

from pathlib import Path

from costmodel.methods import list_methods, method_info

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEAD = (
    "| method | where | default | the question decides | count known before the tower "
    "| attention stays fused | needs beside the tokens | computed a second time |"
)


def yes(value):
    return "yes" if value else "no"


def table():
    lines = [HEAD, "|---" * 8 + "|"]
    for name in list_methods():
        info = method_info(name)
        cells = (
            f"`{name}`",
            info.where,
            info.default_text,
            yes(info.asks_question),
            yes(info.count_known),
            yes(info.fused_attention),
            info.needs_text,
            info.recomputes,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_page_says_what_the_methods_say() -> None:
    assert table() in PAGE.read_text("utf-8")


def main() -> None:
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(HEAD)
    PAGE.write_text(before + table() + "\n\n" + rest.partition("\n\n")[2], "utf-8")


if __name__ == "__main__":
    main()
