"""Pages that MkDocs makes from the code: one for each method, one for each package; README is the front page.

A method's page comes from its two files, `costmodel/methods/<module>.py` and `token_reduction/<module>.py`; a
package's from the docstrings of its public names. Files are read, not imported, where they would need torch.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

from costmodel import estimate
from costmodel.methods import list_methods, method_info
from costmodel.methods.registry import MODULES
from costmodel.schedule import schedule_text
from vlm_roofline.cli.methods import document, example
from vlm_roofline.cli.units import show_flops, show_time

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
PACKAGES = ("hardware_specs", "costmodel", "token_reduction", "profiling")
#: Pages that lie outside docs: file -> page.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "measurements/README.md": "measurements.md",
}
_FACTS = (
    "formula", "complexity", "place", "source", "keep", "default_keep", "needs", "variants", "trained",
    "asks_question", "count_known", "fused_attention", "recomputes", "published_settings",
)  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Order the pages; one that has no place yet is about using it."""
    tutorials = [
        "price-your-model.md",
        "comparing.md",
        "add-a-method.md",
        "measuring.md",
        "calibrating.md",
        "reproduce-a-table.md",
    ]
    papers = ["conventions.md", "boundaries.md", "which-plan.md", "audit.md", "questions.md"]
    counting = ["cost-model.md", "calibration.md", "families.md", "hardware.md", "extending.md"]
    evidence = ["evidence.md", "reliability.md", "changed-numbers.md"]
    using = ["sweeps.md", "evaluate.md", "parallel.md", "field-files.md", "explain.md"]
    placed = {
        "methods.md",
        "SKILL.md",
        "gallery.md",
        *tutorials,
        *papers,
        *counting,
        *evidence,
        *using,
    }
    using += sorted({page.name for page in (ROOT / "docs").glob("*.md")} - placed)
    config.nav = [
        {"Start": "index.md"},
        {"Gallery": "gallery.md"},
        {"Tutorials": tutorials},
        {"Read papers": papers},
        {"Use it": using},
        {"How it counts": counting},
        {"Methods": ["methods.md", *(f"methods/{_slug(name)}.md" for name in list_methods())]},
        {"Evidence": [*evidence, "measurements.md"]},
        {"Reference": [f"reference/{package}.md" for package in PACKAGES]},
        {"Project": ["contributing.md", "changelog.md"]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {page: _moved(source) for source, page in OUTSIDE.items()}
    pages |= {f"methods/{_slug(name)}.md": method_page(name) for name in list_methods()}
    pages |= {f"reference/{package}.md": reference_page(package) for package in PACKAGES}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, **_: object) -> str:
    """Keep a command's options in one piece where its line is wrapped, and mark long cells of tables."""
    html = re.sub(r"^<td>(.{60,})</td>$", r'<td class="long">\1</td>', html, flags=re.MULTILINE)
    return re.sub(
        r'(?<=<div class="language-console highlight">).*?(?=</div>)',
        lambda block: re.sub(
            r"(?<=[\s>])--[a-z][\w-]*", r'<span class="option">\g<0></span>', block[0]
        ),
        html,
        flags=re.DOTALL,
    )


def _slug(name: str) -> str:
    return name.replace("+", "-plus")


def _moved(source: str) -> str:
    """Return a page with its links as they are from the folder of the pages."""
    text = (ROOT / source).read_text(encoding="utf-8")

    def led(match: re.Match[str]) -> str:
        words, target = match.groups()
        path, _, anchor = target.partition("#")
        inner = OUTSIDE.get(path) or (
            path.removeprefix("docs/") if path.startswith("docs/") else None
        )
        if target.startswith(("http", "#")):
            return match[0]
        # What is no page (a folder, a table) is named.
        if inner is None or not inner.endswith((".md", ".png")) or inner == "SKILL.md":
            return words
        return f"[{words}]({inner}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", led, text)


def prose(text: str) -> str:
    """Return a docstring as Markdown: what is indented is code, and nothing else marks anything."""
    pieces = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        if all(line.startswith("    ") or not line for line in lines) or ">>>" in block:
            pieces.append(
                "```text\n" + "\n".join(line.removeprefix("    ") for line in lines) + "\n```"
            )
            continue
        parts = re.split(r"(`[^`\n]+`)", block)
        pieces.append("".join(
            part if part.startswith("`") else re.sub(r"([\\*_\[\]<>#|])", r"\\\1", part) for part in parts
        ))  # fmt: skip
    return "\n\n".join(pieces)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    return prose(str(value)).replace("\n", " ")


def method_page(name: str) -> str:
    """Return the page of a method."""
    info, module = method_info(name), MODULES[name]
    facts = document(info)
    shown = [(key, facts[key]) for key in _FACTS if facts.get(key) not in (None, "", [])]
    rows = "\n".join(f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in shown)
    case = example(name)
    shape = {"frames": case["frames"]} if "frames" in case else {}
    cost = estimate(case["model"], case["hardware"], method=name, **shape)
    options = "\n".join(
        f"| `{option}` | {_cell(told['default'])} | {_cell(told['expects'])} | {_cell(told['meaning'])} |"
        for option, told in facts["options"].items()
    )
    frames = f" --frames {case['frames']}" if shape else ""
    command = f"vlm-roofline estimate {case['model']} -d {case['hardware']} --method {name}{frames}"
    parts = [
        f"# {name}",
        prose(info.summary),
        f"|  |  |\n|---|---|\n{rows}",
        "## Price",
        f"{case['model']} on {case['hardware']}, at the method's default:",
        "| | without | with |\n|---|---:|---:|\n"
        f"| FLOPs | {show_flops(case['flops_without'])} | {show_flops(case['flops'])} |\n"
        f"| time to the first token | {show_time(case['ttft_s_without'])} | {show_time(case['ttft_s'])} |\n"
        f"| its own | | {show_flops(case['own_flops'])}FLOP in {case['own_kernels']:,.0f} kernels |",
        f"```console\n$ {command}\n```",
        "## Tokens by layer",
        layers_picture(cost.visual_tokens_by_layer),
        f"{schedule_text(cost.visual_tokens_by_layer)}.",
        f"## What it is (`costmodel/methods/{module}.py`)",
        prose(_docstring(ROOT / "costmodel" / "methods" / f"{module}.py")),
        f"## How it runs (`token_reduction/{module}.py`)",
        prose(_docstring(ROOT / "token_reduction" / f"{module}.py")),
    ]
    if options:
        parts.insert(3, f"| option | default | values | meaning |\n|---|---|---|---|\n{options}")
    return "\n\n".join(parts) + "\n"


def layers_picture(spans: tuple[tuple[int, int], ...]) -> str:
    """Return bars, one for each layer of the language model, as high as its visual tokens."""
    most = max((tokens for _, tokens in spans), default=0) or 1
    layers = sum(count for count, _ in spans) or 1
    width, bars, layer = 600 / layers, [], 0
    for count, tokens in spans:
        height = max(1.0, 110 * tokens / most)
        bars += [
            f'<rect x="{(layer + k) * width + 1:.1f}" y="{115 - height:.1f}" width="{width - 2:.1f}" '
            f'height="{height:.1f}"/>'
            for k in range(count)
        ]
        layer += count
    words = schedule_text(spans)
    return (
        f'<svg viewBox="0 0 600 120" role="img" aria-label="{words}" style="max-width:40rem" '
        f'fill="#0072b2">{"".join(bars)}</svg>'
    )


def reference_page(package: str) -> str:
    """Return the public names of a package with their signatures and docstrings."""
    parts = [f"# {package}", prose(_docstring(ROOT / package / "__init__.py"))]
    for name, path in sorted(_public(package).items()):
        found = _definition(path, name)
        if found is None:
            continue
        kind, signature, text = found
        parts += [f"## {name}", f"```python\n{kind} {signature}\n```", _arguments(text)]
    return "\n\n".join(parts) + "\n"


def _arguments(text: str) -> str:
    """Return a docstring with its sections as they stand."""
    summary, *rest = text.split("\n\n")
    pieces = [prose(summary)]
    for block in rest:
        head, _, body = block.partition("\n")
        if head.endswith(":") and body.startswith("    "):
            pieces.append(f"**{head[:-1]}**\n\n{entries(body)}")
        else:
            pieces.append(prose(block))
    return "\n\n".join(pieces)


def entries(text: str) -> str:
    """Return a section of a docstring as a list where all of it is `name: meaning`, else as prose."""
    whole = re.sub(r"\n {8,}", " ", text)
    lines = [line.removeprefix("    ") for line in whole.split("\n")]
    pairs = [re.fullmatch(r"([\w*., ]+?): (.+)", line) for line in lines]
    if all(pairs):
        return "\n".join(f"- `{pair[1]}`: {prose(pair[2])}" for pair in pairs if pair)
    return prose(" ".join(lines))


def _public(package: str) -> dict[str, Path]:
    """Return the public names of a package with the file each is imported from."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package):
            found |= {alias.name: _file(node.module) for alias in node.names}
    return found


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _definition(path: Path, name: str) -> tuple[str, str, str] | None:
    """Return kind, signature and docstring of a name, through the packages that hand it on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            kind, signature = "class", name
            if isinstance(node, ast.FunctionDef):
                returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
                kind, signature = "def", f"{name}({ast.unparse(node.args)}){returns}"
            return kind, signature, ast.get_docstring(node) or ""
    for node in ast.walk(tree):
        handed_on = isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]
        if handed_on and node.module and _file(node.module).exists():
            return _definition(_file(node.module), name)
    return None
