"""`vlm-roofline models`: the shipped models, and what one model is made of."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json
from vlm_roofline.cli.options import Json, parse_image_size
from vlm_roofline.cli.units import show_bytes

#: What the parts of a model are, in the order they are shown.
PARTS = {
    "vision": "vision tower",
    "projector": "projector",
    "extra": "newline token, pooling",
    "embedding": "token embedding",
    "layers": "decoder layers",
    "final_norm": "final norm",
    "lm_head": "lm_head",
    "total": "total",
}


group = typer.Typer(help="What models are made of: parameters, visual tokens, KV cache.")


@group.command("list")
def list_all(json: Json = False) -> None:
    """List the shipped models with their main figures."""
    from costmodel.models import describe, list_models

    models = [describe(name) for name in list_models()]
    if json:
        print_json(models)
        return
    from vlm_roofline.cli.tables import Column, columns, table

    shown = [
        *columns(model="name", family="family"),
        Column("parameters", lambda model: model["parameters"]["total"], "1"),
        Column("language model", lambda model: _text_shape(model["text"]), priority=1),
        Column("vision tower", lambda model: _vision_shape(model["vision"]), priority=2),
        Column("visual tokens", lambda model: _seen(model, "tokens"), "1"),
        Column("crops", lambda model: _seen(model, "crops"), "1", priority=3),
        Column("KV per token", "kv_bytes_per_token", "B"),
    ]
    console().print(table(models, shown))
    console().print(
        "Visual tokens of the default image or clip, as papers count them; KV in half precision."
    )


@group.command("show")
def show(
    model: Annotated[
        str,
        typer.Argument(
            help="Shipped name, config.json or its folder, or hub id; @layers=4,width=1/4",
            autocompletion=completes("model"),
        ),
    ],
    image_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH in pixels, such as 480x640.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip, for video models.")] = None,
    json: Json = False,
) -> None:
    """Show a model's parameters part by part, its visual tokens and its KV cache."""
    from costmodel.models import describe

    summary = describe(model, image_size=parse_image_size(image_size), frames=frames)
    summary["checkpoint"] = _checkpoint(model)
    if json:
        print_json(summary)
        return
    from vlm_roofline.cli.tables import Column, table

    parts = summary["parameters"]
    shown = [
        Column("part", lambda key: PARTS[key]),
        Column("parameters", lambda key: parts[key], "1"),
        Column("share", lambda key: f"{parts[key] / parts['total']:.1%}", "1"),
    ]
    view = table([key for key in PARTS if parts[key]], shown)
    out = console()
    out.print(f"{summary['name']}: {summary['family']}, from {summary['source']}")
    out.print(view)
    out.print(
        f"language model  {_text_shape(summary['text'])}, vocabulary {summary['text']['vocab_size']:,}"
    )
    out.print(f"vision tower    {_vision_shape(summary['vision'])}{_crop_text(summary['vision'])}")
    out.print(f"visual input    {_visual_text(summary)}")
    out.print(
        f"KV cache        {show_bytes(summary['kv_bytes_per_token'])} per token in half precision"
        f"{_window_text(summary['text'])}"
    )
    if summary["checkpoint"]:
        out.print(f"checkpoint      {summary['checkpoint']}", markup=False)
    if summary["from_defaults"]:
        out.print(f"left to transformers' defaults: {', '.join(summary['from_defaults'])}")


def _checkpoint(model: str) -> str | None:
    """Say what precision a checkpoint states, or why that cannot be priced; None for a shape alone."""
    from costmodel.models import load_model
    from costmodel.precision.resolving import checkpoint_of
    from hardware_specs.errors import InvalidFileError

    try:
        own = checkpoint_of(load_model(model))
    except InvalidFileError as error:
        return f"not priced: {error}"
    if own is None:
        return None
    parts = [own.text or "no dtype stated"]
    if own.quantisation is not None:
        parts.append(f"quantised by {own.quantisation.method}")
    return ", ".join(parts)


def _seen(model: dict[str, Any], what: str) -> int:
    found: int = (model["visual_input"] or {}).get(what, 0)
    return found


def _text_shape(text: dict[str, Any]) -> str:
    heads = f"{text['num_heads']} heads"
    if text["num_kv_heads"] != text["num_heads"]:
        heads += f" over {text['num_kv_heads']}"
    return f"{text['num_layers']} x {text['hidden_size']}, {heads}"


def _vision_shape(vision: dict[str, Any] | None) -> str:
    if vision is None:
        return "none"
    copies = f"{vision['copies']} x " if vision["copies"] > 1 else ""
    return f"{copies}{vision['family']}, {vision['num_layers']} x {vision['hidden_size']}"


def _window_text(text: dict[str, Any]) -> str:
    """Say how many layers keep only the last tokens; nothing where none does."""
    if not text["sliding_layers"]:
        return ""
    return (
        f"; {text['sliding_layers']} of {text['num_layers']} layers keep the last "
        f"{text['sliding_window'] - 1:,}"
    )


def _crop_text(vision: dict[str, Any] | None) -> str:
    if vision is None:
        return ""
    return (
        f", crops of {vision['image_size']} x {vision['image_size']} pixels in patches of "
        f"{vision['patch_size']}: {vision['tokens']} tokens"
    )


def _visual_text(summary: dict[str, Any]) -> str:
    paper, exact = summary["visual_input"], summary["visual_input_transformers"]
    if paper is None:
        return "none"
    crops = "crop" if paper["crops"] == 1 else "crops"
    text = f"{paper['tokens']:,} tokens from {paper['crops']} {crops}"
    if exact["tokens"] != paper["tokens"]:
        text += f" ({exact['tokens']:,} as transformers runs it)"
    return text
