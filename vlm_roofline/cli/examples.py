"""One or two lines for the help of every command, as somebody would type them; tests run them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

#: Command -> lines behind `vlm-roofline`.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "estimate": (
        "estimate llava-1.5-7b -d a100 --output-tokens 128",
        "estimate llava-next-13b -d h100 --method fastv --keep 50% --json",
    ),
    "compare": (
        "compare llava-1.5-7b -d h100,l40s --method fastv,divprune --keep 50% --output-tokens 128",
    ),
    "sweep": ("sweep llava-1.5-7b -d a100,l4 --visual-tokens 64:576:64 --out sweep.csv",),
    "explore": (
        "explore llava-next-vicuna-13b -d h100,l40s --method none --out explorer.html",
        "explore llava-1.5-7b -d l40s --method fastv --keep 50%,64 --out explorer.html",
    ),
    "serve": ("serve llava-1.5-7b -d a100 --tp 2 --rate 4 --price-per-hour 2",),
    "break-even": ("break-even llava-1.5-7b -d l4 --latency-ms 100",),
    "frontier": (
        "frontier llava-1.5-7b -d a100",
        "frontier llava-1.5-7b -d a100 --benchmark pope --latency-ms 10",
    ),
    "plot roofline": ("plot roofline llava-1.5-7b -d a100 --out roofline.svg",),
    "plot latency": ("plot latency llava-1.5-7b -d a100 --out latency.pdf",),
    "plot memory": ("plot memory llava-1.5-7b -d l4 --batch-size 8 --out memory.png",),
    "plot sweep": ("plot sweep sweep.csv --y peak_memory_bytes --out sweep.pdf",),
    "plot timeline": ("plot timeline llava-1.5-7b -d a100 --output-tokens 8 --out trace.json",),
    "reproduce list": ("reproduce list",),
    "reproduce": ("reproduce fastv",),
    "audit": ("audit table.csv",),
    "models list": ("models list",),
    "models show": ("models show llava-next-13b --image-size 480x640",),
    "specs list": ("specs list hopper",),
    "specs show": ("specs show h100",),
    "specs detect": ("specs detect --device cpu",),
    "methods list": ("methods list",),
    "methods show": ("methods show divprune",),
    "methods solve": ("methods solve llava-1.5-7b pyramiddrop --mean-tokens 64 --layers 2,4,8",),
    "generate": ("generate MODEL_FOLDER picture.jpg --method divprune --keep 64",),
    "profile": (
        "profile llava-1.5-7b --visual-tokens 576,64 --method none,divprune --out runs",
        "profile llava-1.5-7b --device cpu --dtype fp32 --scale layers=2,width=1/8",
    ),
    "measurements": ("measurements runs",),
    "count": ("count llava-1.5-7b --scale layers=2,width=1/8 --visual-tokens 64",),
    "calibrate": ("calibrate ops.csv --hardware a100 --out a100.json",),
    "reconcile": ("reconcile runs --calibration a100.json",),
    "report": ("report runs --out report.html",),
    "explain": ("explain before.json.gz", "explain before.json.gz after.json.gz --out why.html"),
    "import": (
        "import full_report.csv --out others",
        "import serve.json --model llava-1.5-7b --dtype fp16 -d a100 --visual-tokens 576 --out others",
    ),
    "loop": ("loop llava-1.5-7b --out loop",),
    "campaign": (
        "campaign smoke --out gpu",
        "campaign smoke --device cpu --scale layers=2,width=1/16 --budget 60 --out rehearsal",
    ),
}


#: Characters of a line of an example, less what click indents it by and the continuation's mark.
_WIDTH = 74


def complete_help(app: typer.Typer, path: str = "") -> None:
    """Complete the help of an application's commands, its groups' included.

    Examples stand under each command's help, and its summary stands whole in the list of commands.
    """
    for command in app.registered_commands:
        callback = command.callback
        typed = command.name or getattr(callback, "__name__", "").replace("_", "-")
        # Click cuts what it takes from the docstring itself.
        command.short_help = (inspect.getdoc(callback) or "").partition("\n\n")[0]
        lines = EXAMPLES.get(f"{path} {typed}".strip())
        if lines:
            # The mark keeps click from wrapping the paragraph.
            command.epilog = "\n".join(("\b", "Examples:", *map(_typed, lines)))
    for group in app.registered_groups:
        inner = group.typer_instance
        name = group.name or (inner.info.name if inner is not None else "")
        if inner is not None and isinstance(name, str):
            group.short_help = inner.info.help
            complete_help(inner, f"{path} {name}".strip())


def _typed(line: str) -> str:
    r"""Return an example as it is typed, continued on further lines where 80 columns ask for it.

    >>> print(_typed("frontier llava-1.5-7b -d a100 --benchmark pope --latency-ms 10 --memory-gb 80"))
      vlm-roofline frontier llava-1.5-7b -d a100 --benchmark pope \
        --latency-ms 10 --memory-gb 80
    """
    lines = ["  vlm-roofline"]
    # An option stays with its value.
    for part in re.sub(r" (?=-)", "\0", line).split("\0"):
        if len(lines[-1]) + len(part) + 1 > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return "\n".join(lines)
