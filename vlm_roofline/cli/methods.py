"""`vlm-roofline methods`: the token-reduction methods, what each does and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json  # noqa: TC001 - typer reads the annotations when it runs

if TYPE_CHECKING:
    from costmodel.methods import MethodInfo


#: What is said of a method, in this order; and the attribute of its info, where it has another name.
_SAID = (
    "name", "summary", "place", "default_keep", "default_layer", "takes_layer", "adaptive",
    "mean_counts", "formula", "complexity", "needs", "published_settings", "source", "keep",
    "keep_choices", "variants", "trained",
)  # fmt: skip
_ATTRIBUTES = {
    "default_keep": "default_text",
    "mean_counts": "counts",
    "needs": "needs_text",
    "published_settings": "published",
    "keep": "keep_meaning",
}


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(help="The token-reduction methods: what each does, and what it costs.")
    group.command("list")(list_methods)
    group.command("show")(show)
    app.add_typer(group, name="methods")


def list_methods(json: Json = False) -> None:
    """List the methods with their place, default and complexity."""
    from costmodel import methods

    infos = [methods.method_info(name) for name in methods.list_methods()]
    if json:
        print_json({"schema_version": 1, "methods": [document(info) for info in infos]})
        return
    from vlm_roofline.cli.tables import Column, columns, table

    shown = [
        Column("method", "name", whole=True),
        Column("place", "place", whole=True),
        *columns(default="default_text", own_cost="complexity", what_it_does="summary"),
    ]
    console().print(table(infos, shown))
    console().print("`vlm-roofline methods show NAME` says more about one.")


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A method's name, see `methods list`.", autocompletion=completes("method")
        ),
    ],
    json: Json = False,
) -> None:
    """Show everything about one method: place, settings, formula, needs, source, example cost."""
    from costmodel.methods import method_info

    entry = document(method_info(name))
    entry["example"] = example(name)
    if json:
        print_json({"schema_version": 1, **entry})
        return
    from vlm_roofline.cli.tables import Column, table

    said = [(key, value) for key, value in entry.items() if value not in (None, [], {}, "")]
    shown = [
        Column("", lambda pair: pair[0].replace("_", " "), whole=True, style="bold"),
        Column("", lambda pair: _text(pair[1])),
    ]
    console().print(table(said, shown))


def document(info: MethodInfo) -> dict[str, Any]:
    """Return what is known of a method as plain values."""
    said = {key: getattr(info, _ATTRIBUTES.get(key, key)) for key in _SAID}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}
    options = {
        option.name: {name: getattr(option, name) for name in ("default", "expects", "meaning")}
        for option in info.options
    }
    return {**plain, "mean_counts": dict(info.counts), "options": options}


def example(name: str) -> dict[str, Any]:
    """Return what the method's default does to one request: LLaVA-1.5-7B on an A100."""
    from costmodel import estimate

    model, hardware = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
    plain = estimate(model, hardware)
    reduced = estimate(model, hardware, method=name)
    return {
        "model": model,
        "hardware": hardware,
        "flops_without": plain.totals.flops,
        "flops": reduced.totals.flops,
        "own_flops": reduced.stages["reduction"].flops,
        "own_kernels": reduced.stages["reduction"].kernels,
        "ttft_s_without": plain.totals.ttft_s,
        "ttft_s": reduced.totals.ttft_s,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(str(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
