"""One or two lines for the help of every command, as somebody would type them; tests run them."""

from __future__ import annotations

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
    "break-even": ("break-even llava-1.5-7b -d l4 --latency-ms 100",),
    "frontier": (
        "frontier llava-1.5-7b -d a100",
        "frontier llava-1.5-7b -d a100 --benchmark pope --latency-ms 10",
    ),
    "plot roofline": ("plot roofline llava-1.5-7b -d a100 --out roofline.svg",),
    "plot latency": ("plot latency llava-1.5-7b -d a100 --out latency.pdf",),
    "plot memory": ("plot memory llava-1.5-7b -d l4 --batch-size 8 --out memory.png",),
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
    "loop": ("loop llava-1.5-7b --out loop",),
}


def add_examples(app: typer.Typer, path: str = "") -> None:
    """Set the examples under the help of an application's commands, its groups' included."""
    for command in app.registered_commands:
        callback = command.callback
        typed = command.name or getattr(callback, "__name__", "").replace("_", "-")
        lines = EXAMPLES.get(f"{path} {typed}".strip())
        if lines:
            # A blank line apart: one line break would be read as a space.
            command.epilog = "\n\n".join(
                ("Examples:", *(f"  vlm-roofline {line}" for line in lines))
            )
    for group in app.registered_groups:
        inner = group.typer_instance
        name = group.name or (inner.info.name if inner is not None else "")
        if inner is not None and isinstance(name, str):
            add_examples(inner, f"{path} {name}".strip())
