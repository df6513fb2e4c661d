"""`vlm-roofline methods`: the token-reduction methods, what each does and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json, ModelArgument
from vlm_roofline.cli.units import show as show_value

if TYPE_CHECKING:
    from costmodel.methods import MethodInfo


#: What is said of a method, in this order; and the attribute of its info, where it has another name.
_SAID = (
    "name", "summary", "place", "second_place", "default_keep", "default_layer", "takes_layer", "adaptive",
    "mean_counts", "formula", "complexity", "needs", "asks_question", "count_known",
    "fused_attention", "recomputes", "published_settings", "source", "keep", "keep_choices",
    "variants", "trained",
)  # fmt: skip
_ATTRIBUTES = {
    "default_keep": "default_text",
    "mean_counts": "counts",
    "needs": "needs_text",
    "published_settings": "published",
    "keep": "keep_meaning",
}


MethodArgument = Annotated[
    str,
    typer.Argument(help="A method, see `methods list`.", autocompletion=completes("method")),
]

group = typer.Typer(help="The token-reduction methods: what each does, and what it costs.")


@group.command("list")
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
        Column("place", "where", whole=True),
        *columns(default="default_text"),
        Column("asks the question", "asks_question", priority=2),
        Column("count known", "count_known", priority=2),
        Column("fused attention", "fused_attention", priority=2),
        *columns(own_cost="complexity", what_it_does="summary"),
    ]
    console().print(table(infos, shown))
    console().print("`vlm-roofline methods show NAME` says more about one.")


@group.command("show")
def show(
    name: MethodArgument,
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


@group.command("solve")
def solve(
    model: ModelArgument,
    name: MethodArgument,
    mean_tokens: Annotated[
        float, typer.Option(help="Visual tokens per language-model layer, on average.")
    ],
    layers: Annotated[
        str | None, typer.Option(help="Layers that the method cuts at, such as 2,4,8.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip in the image's place.")
    ] = None,
    json: Json = False,
) -> None:
    """Solve for the setting of a method that leaves so many visual tokens per layer on average."""
    from costmodel.methods.options import layer_indices
    from costmodel.questions.schedules import solve_schedule
    from costmodel.schedule import schedule_text
    from hardware_specs.errors import InvalidInputError

    try:
        cuts = None if layers is None else layer_indices(layers)
    except ValueError:
        raise InvalidInputError(
            f"--layers {layers} is no list of layers; write it as 2,4,8"
        ) from None
    solved = solve_schedule(model, name, mean_tokens=mean_tokens, layers=cuts, frames=frames)
    if json:
        print_json(solved.to_dict())
        return
    out = console()
    out.print(str(solved.method))
    out.print(f"visual tokens: {schedule_text(solved.visual_tokens_by_layer)}")
    out.print(
        f"of all visual tokens are left: {', '.join(f'{ratio:.4g}' for ratio in solved.ratios)}"
    )


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
    """Return what the method's default does to one request on an A100: LLaVA-1.5-7B's image, or a clip."""
    from costmodel import estimate
    from costmodel.methods import method_info

    model, hardware = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
    shape: dict[str, Any] = {}
    if method_info(name).place == "before-vision" and method_info(name).on_merged:
        model, shape = "qwen2.5-vl-7b", {"image_size": (672, 672)}
    if method_info(name).clips:
        model, shape = "llava-onevision-7b", {"frames": 32}
    plain = estimate(model, hardware, **shape)
    reduced = estimate(model, hardware, method=name, **shape)
    return {
        "model": model,
        "hardware": hardware,
        **shape,
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
    return str(show_value(value))
