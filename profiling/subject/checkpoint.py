"""A checkpoint that answers: its weights, its processor, and what it is called with to answer a question."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from hardware_specs.errors import InvalidFileError, UnsupportedError
from hardware_specs.showing import one_line
from profiling.subject.libraries import transformers_library
from profiling.subject.models import build_model, check_model_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL.Image import Image

#: Parts of a processor, which are loaded each by itself.
_PARTS = ("image_processor", "tokenizer", "video_processor")


def load_checkpoint(
    source: str, dtype: str, device: str, attention: str = "sdpa"
) -> tuple[Any, Any]:
    """Return a checkpoint's model, from safetensors, and its processor; no code of its own is run.

    Args:
        source: a local model folder, or a hub id.
        dtype: as of `build_model`.
        device: as of `build_model`.
        attention: attention of transformers: sdpa, eager.

    Raises:
        InvalidFileError: a file of it is damaged, or no processor can be loaded.
        UnsupportedError: it needs code of its own, or takes no pictures.
    """
    transformers = transformers_library()
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

    try:
        try:
            return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False)
        except (ImportError, ValueError) as error:
            if "torchvision" not in str(error).lower():
                raise
            return _picture_processor(source)
    except (
        AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        reason = one_line(error, 300) or type(error).__name__
        raise InvalidFileError(
            f"{source} holds no processor that can be loaded: {reason}"
        ) from error


def _picture_processor(source: str) -> Any:
    """Return the processor of a checkpoint's family without the part for videos, which needs torchvision.

    Processors of families that take videos load the part for them with the rest; pictures, text and the
    places between them do not need it.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    kind: Any = PROCESSOR_MAPPING[type(config)]

    class Pictures(kind):  # type: ignore[misc]
        """Asks for no part for videos."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            if name == "video_processor":
                return None
            return super().check_argument_for_proper_class(name, argument)

        def apply_chat_template(self, *given: Any, **more: Any) -> Any:
            """What families do beside asks the part for videos."""
            return transformers.ProcessorMixin.apply_chat_template(self, *given, **more)

    said, _ = kind.get_processor_dict(source)
    names = [name for name in inspect.signature(kind.__init__).parameters if name not in _PARTS]
    return Pictures(
        image_processor=transformers.AutoImageProcessor.from_pretrained(source),
        tokenizer=transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False),
        video_processor=None,
        **{name: said[name] for name in names if name in said},
    )


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


def new_tokens(model: Any, processor: Any, inputs: dict[str, Any], **settings: Any) -> torch.Tensor:
    """Return the ids of the tokens that a model answers with, shape (new tokens,).

    Args:
        model: a loaded model.
        processor: its processor.
        inputs: from `inputs_of`.
        settings: of `generate` of transformers.
    """
    tokenizer = processor.tokenizer
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    padding = next((each for each in ends if each is not None), None)
    if padding is not None:
        settings["pad_token_id"] = padding
    found: torch.Tensor = model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
    return found
