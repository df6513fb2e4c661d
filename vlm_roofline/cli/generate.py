"""`vlm-roofline generate`: ask a real model about a picture, with fewer visual tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costmodel.quantities import STAGES
from hardware_specs.errors import DeviceUnavailableError, InvalidInputError
from hardware_specs.files.reading import read_picture
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.method_settings import MethodOptions, Variant, with_settings
from vlm_roofline.cli.options import Attention, Json, parse_keep, written_to
from vlm_roofline.cli.paths import typed_path

if TYPE_CHECKING:
    from token_reduction import Method


def generate(
    model: Annotated[str, typer.Argument(help="A local model folder, or a hub id.")],
    image: Annotated[Path, typer.Option(parser=typed_path, metavar="<path>", help="The picture.")],
    prompt: Annotated[
        str,
        typer.Option(help="The question. With the image token in it, it is used word for word."),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="A method, see `methods list`, or none.", autocompletion=completes("method")
        ),
    ] = "none",
    keep: Annotated[str | None, typer.Option(help="What it keeps: 64, or a ratio 0.1.")] = None,
    layer: Annotated[int | None, typer.Option(help="Layer K of methods inside the LLM.")] = None,
    variant: Variant = None,
    option: MethodOptions = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of the answer at most.")] = 64,
    temperature: Annotated[
        float, typer.Option(help="0 for the likeliest token, else sampled.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:N or cpu; cuda if there.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32, fp16, bf16, ...; the checkpoint's own on a GPU, fp32 on a CPU."),
    ] = None,
    attention: Attention = "sdpa",
    warm_up: Annotated[
        bool, typer.Option("--warm-up", help="Run once before the run that is timed.")
    ] = False,
    save_overlay: Annotated[
        Path | None,
        written_to("Draw what was kept on the picture: out.png.", ".png", ".jpg", ".jpeg", ".webp"),
    ] = None,
    json: Json = False,
) -> None:
    """Answer a question about a picture, and say what the visual tokens cost."""
    from profiling.answering import answer, check_sampling
    from profiling.subject.checkpoint import inputs_of, load_checkpoint

    check_sampling(max_new_tokens, temperature, seed)
    request = method_asked(method, keep, layer=layer, variant=variant, options=option)
    if save_overlay is not None and request is None:
        raise InvalidInputError("--save-overlay draws what a method kept; give --method")
    picture = read_picture(image)
    chosen = _device(device)
    loaded, processor = load_checkpoint(
        model, dtype or ("auto" if chosen != "cpu" else "fp32"), chosen, attention
    )
    record, answered = answer(
        loaded, processor, inputs_of(loaded, processor, [picture], prompt), request, device=chosen,
        max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, warm_up=warm_up,
        trace=save_overlay is not None,
    )  # fmt: skip
    if save_overlay is not None and record is not None:
        from token_reduction.pictures.overlay import save_overlay as save

        save(save_overlay, picture, loaded, record, processor.image_processor)
    document = {"schema_version": 1, "model": model, "prompt": prompt, **answered}
    document["overlay"] = None if save_overlay is None else str(save_overlay)
    if json:
        print_json(document)
        return
    warn(*document["notes"])
    _print(document)


def method_asked(method: str, keep: str | None, **settings: Any) -> Method | None:
    """Return the method that options ask for; None is the unreduced model.

    Args:
        method: its name.
        keep: what it keeps, as typed.
        settings: `layer`, `variant` and `options` of `with_settings`.

    Raises:
        InvalidInputError: a keep without a method.
        VlmRooflineError: no such method or setting.
    """
    (method,) = with_settings([method], **settings)
    if method.lower() == "none":
        if keep is not None:
            raise InvalidInputError("--keep says how a method works; give --method")
        return None
    from token_reduction import get_method

    return get_method(method, keep=parse_keep(keep))


def _device(given: str | None) -> str:
    from profiling.devices.device import device_kind

    if given is None:
        try:
            return device_kind("cuda")
        except DeviceUnavailableError:
            return "cpu"
    if device_kind(given) == "meta":
        raise InvalidInputError("--device meta has no values to answer with; give cuda or cpu")
    return given


def _print(document: dict[str, Any]) -> None:
    from vlm_roofline.cli.tables import columns, table

    out = console()
    out.print(document["answer"] or "(an empty answer)")
    out.print()
    reduction = document["reduction"]
    if reduction is not None:
        before, after = document["visual_tokens_before"], document["visual_tokens_after"]
        share = f"{100 * after / before:.1f} %" if before else "-"
        out.print(f"{reduction['method']}: {after} of {before} visual tokens left ({share})")
        lengths = reduction["sequence_lengths"]
        if len(set(lengths)) > 1:
            out.print(f"tokens entering each layer: {', '.join(map(str, lengths[:-1]))}")
    times = document["times_s"]
    names = {stage: stage for stage in (*STAGES, "total")}
    names["decode"] = f"decode ({document['new_tokens'] - 1} steps)"
    rows = [
        {"stage": name, "time": times[stage]}
        for stage, name in names.items()
        if times[stage] is not None
    ]
    out.print(
        table(
            rows,
            [*columns(stage="stage"), *columns("s", time="time")],
            style=lambda row: "bold" if row["stage"] == "total" else None,
        )
    )
    warmth = "warmed up" if document["warmed_up"] else "first run, not warmed up"
    out.print(
        f"{document['new_tokens']} tokens on {document['device']} in {document['dtype']}; "
        f"clock {document['clock']}, {warmth}; reduction inside another stage is part of it too",
        style="dim",
    )
    if document["overlay"] is not None:
        out.print(f"overlay: {document['overlay']}")
