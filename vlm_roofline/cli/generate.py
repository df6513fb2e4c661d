"""`vlm-roofline generate`: ask a real model about a picture, with fewer visual tokens."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costmodel.quantities import STAGES
from hardware_specs.errors import (
    DeviceUnavailableError,
    InvalidFileError,
    InvalidInputError,
    UnsupportedError,
)
from hardware_specs.files.reading import read_picture
from hardware_specs.showing import one_line
from vlm_roofline.cli.completion import completes
from vlm_roofline.cli.console import console, print_json, warn
from vlm_roofline.cli.method_settings import MethodOptions, Variant, with_settings
from vlm_roofline.cli.options import Json, parse_keep, written_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from profiling.instruments.recorder import Recorder
    from token_reduction import Method
    from token_reduction.apply import ReductionRecord


def generate(
    model: Annotated[str, typer.Argument(help="A local model folder, or a hub id.")],
    image: Annotated[Path, typer.Option(help="The picture.")],
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
    attention: Annotated[
        str, typer.Option(help="Attention of transformers: sdpa, eager.")
    ] = "sdpa",
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
    if max_new_tokens < 1:
        raise InvalidInputError(f"--max-new-tokens {max_new_tokens}: at least one token is needed")
    if not temperature >= 0:
        raise InvalidInputError(f"--temperature {temperature} must be 0 or more")
    request = method_asked(method, keep, layer=layer, variant=variant, options=option)
    if save_overlay is not None and request is None:
        raise InvalidInputError("--save-overlay draws what a method kept; give --method")
    picture = read_picture(image)
    chosen = _device(device)
    loaded, processor = load_model_and_processor(
        model, dtype or ("auto" if chosen != "cpu" else "fp32"), chosen, attention
    )
    inputs = inputs_of(loaded, processor, [picture], prompt)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
    if temperature > 0:
        settings["temperature"] = temperature
    record, answer = _answer(
        loaded, processor, inputs, request, settings,
        seed=seed, device=chosen, warm_up=warm_up, trace=save_overlay is not None,
    )  # fmt: skip
    if save_overlay is not None and record is not None:
        from token_reduction.pictures.overlay import save_overlay as save

        save(save_overlay, picture, loaded, record, processor.image_processor)
    document = {"schema_version": 1, "model": model, "prompt": prompt, **answer}
    document["overlay"] = None if save_overlay is None else str(save_overlay)
    if json:
        print_json(document)
        return
    for note in document["notes"]:
        warn(note)
    _print(document)


class _Steps:
    """Tells a recorder's prefill and decode steps apart: the first pass is the prefill."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._passes = 0

    def begin(self, stage: str) -> None:
        self._recorder.begin(self._name(stage))

    def end(self, stage: str) -> None:
        self._recorder.end(self._name(stage))
        self._passes += stage == "prefill"

    def _name(self, stage: str) -> str:
        return "decode" if stage == "prefill" and self._passes else stage


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


def load_model_and_processor(
    source: str, dtype: str, device: str, attention: str
) -> tuple[Any, Any]:
    """Load weights from safetensors, and the processor; no code of the model's own is run."""
    import transformers

    from profiling.subject.models import build_model, check_model_folder

    check_model_folder(source)

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except ValueError as error:
        line = str(error).strip().splitlines()[0]
        raise UnsupportedError(
            f"{source} cannot be loaded without code of its own: {line}"
        ) from error
    except OSError:
        # No such folder or id: the loader below has the fuller message.
        pass
    model = build_model(source, dtype=dtype, device=device, weights="real", attention=attention)
    processor = _processor(source)
    if not hasattr(processor, "image_processor"):
        raise UnsupportedError(
            f"{source} has a {type(processor).__name__}, which takes no pictures; "
            "give a model that sees"
        )
    return model, processor


def _processor(source: str) -> Any:
    """Load the processor; without torchvision, that of a family with videos is one for pictures alone."""
    import transformers

    from vlm_roofline.cli.picture_processor import picture_processor

    try:
        try:
            return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False)
        except (ImportError, ValueError) as error:
            if "torchvision" not in str(error).lower():
                raise
            return picture_processor(source)
    except (
        *(AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    ) as error:
        reason = one_line(error, 300) or type(error).__name__
        raise InvalidFileError(
            f"{source} holds no processor that can be loaded: {reason}"
        ) from error


def inputs_of(model: Any, processor: Any, pictures: Sequence[Image], prompt: str) -> dict[str, Any]:
    """Return what a model is called with to answer a question about pictures.

    Args:
        model: a loaded model.
        processor: its processor.
        pictures: none, one or more.
        prompt: the question; with the image token in it, it is used word for word.
    """
    import torch

    token = getattr(processor, "image_token", "<image>")
    text = prompt
    if token not in prompt:
        if getattr(processor, "chat_template", None):
            content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": prompt}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        else:
            text = f"USER: {token * len(pictures)}\n{prompt} ASSISTANT:"
    batch = processor(images=list(pictures) or None, text=text, return_tensors="pt")
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in batch.items()
        if isinstance(value, torch.Tensor)
    }


def _answer(
    model: Any,
    processor: Any,
    inputs: dict[str, Any],
    request: Method | None,
    settings: dict[str, Any],
    *,
    seed: int,
    device: str,
    warm_up: bool,
    trace: bool,
) -> tuple[ReductionRecord | None, dict[str, Any]]:
    """Generate once, and return what was reduced and what the document says of the answer."""
    import torch

    from profiling.devices.device import clock_for
    from profiling.instruments.recorder import Recorder
    from profiling.subject.stages import StageHooks, anatomy
    from token_reduction import reduce_tokens

    tokenizer = processor.tokenizer
    padding = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    )
    if padding is not None:
        settings = {**settings, "pad_token_id": padding}
    clock = clock_for(device)
    recorder = Recorder(clock)
    hooks = StageHooks(anatomy(model))
    reduction = nullcontext() if request is None else reduce_tokens(model, request, trace=trace)
    with torch.no_grad(), reduction as record:
        if warm_up:
            model.generate(**inputs, **{**settings, "max_new_tokens": 2})
        hooks.attach()
        try:
            torch.manual_seed(seed)
            clock.synchronize()
            with hooks.observing(_Steps(recorder)):
                recorder.begin("total")
                output = model.generate(**inputs, **settings)
                recorder.end("total")
            recorder.close()
            clock.synchronize()
        finally:
            hooks.detach()
    (times,) = recorder.collect()
    count = inputs["input_ids"].shape[1]
    new = output[0, count:]
    before, after = (None, None) if record is None else record.visual_tokens
    return record, {
        "answer": tokenizer.decode(new, skip_special_tokens=True).strip(),
        "new_tokens": len(new),
        "prompt_tokens": count,
        "visual_tokens_before": before,
        "visual_tokens_after": after,
        "times_s": _times(times.event_s),
        "clock": clock.name,
        "device": device,
        "dtype": str(model.dtype).removeprefix("torch."),
        "warmed_up": warm_up,
        "reduction": None if record is None else record.to_dict(),
        "overlay": None,
        "notes": [] if record is None else list(record.notes),
    }


def _times(seconds: dict[str, list[float]]) -> dict[str, float | None]:
    """Return seconds by stage, of a decode step and in all; None for a stage that did not run."""
    times: dict[str, float | None] = {
        stage: sum(seconds[stage]) if stage in seconds else None for stage in STAGES
    }
    steps = seconds.get("decode", [])
    times["decode_per_token"] = sum(steps) / len(steps) if steps else None
    times["total"] = sum(seconds["total"])
    return times


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
