"""The model of the plug-in: a checkpoint that answers questions under a token-reduction method."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from lmms_eval.api.model import lmms

from hardware_specs.errors import InvalidInputError, UnsupportedError
from profiling.subject.checkpoint import inputs_of, load_checkpoint, new_tokens
from token_reduction import reduce_tokens
from vlm_roofline.cli.generate import method_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

#: New tokens where a task does not say how many.
_NEW_TOKENS = 1024
#: What a task may ask of the sampling.
_SAMPLING = ("temperature", "top_p", "num_beams")


class ReducedModel(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A checkpoint under a method, on the GPU of this process's own.

    Args:
        pretrained: a local model folder, or a hub id.
        method: see `vlm-roofline methods list`; `none` for the unreduced model.
        keep: what the method keeps: a number of tokens, or a ratio.
        layer: the layer of methods inside the language model.
        variant: the method's variant.
        dtype: as of `vlm-roofline generate`.
        attention: attention of transformers: sdpa, eager.
        device: `cuda`, of which each process of `accelerate launch` or torchrun takes its own, or `cpu`.
        batch_size: 1, since answers to one question are independent of others then.
        max_batch_size: not used.

    Raises:
        InvalidInputError: another batch size, or a keep without a method.
        UnsupportedError: a method on the frames of clips, which would leave every picture whole.
        VlmRooflineError: no such method, or one that does not fit the model.
    """

    def __init__(
        self,
        pretrained: str,
        method: str = "none",
        keep: str | float | None = None,
        layer: int | None = None,
        variant: str | None = None,
        dtype: str = "auto",
        attention: str = "sdpa",
        device: str | None = "cuda",
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
    ) -> None:
        """Load the checkpoint onto the device."""
        super().__init__()
        if str(batch_size or 1) != "1":
            raise InvalidInputError(f"--batch_size {batch_size}: one picture at a time; give 1")
        del max_batch_size
        self.method = method_asked(
            method, None if keep is None else str(keep), layer=layer, variant=variant, options=()
        )
        if self.method is not None and self.method.info.clips:
            raise UnsupportedError(
                f"{self.method.name} compares the frames of a clip and leaves pictures as they are, and only "
                "tasks of pictures are answered: the score would not be the method's"
            )
        self._rank = int(os.environ.get("RANK", "0"))
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        place = device or "cuda"
        if place == "cuda":
            place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.device = torch.device(place)
        self.model, self.processor = load_checkpoint(pretrained, dtype, place, attention)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer each request, whose arguments are as of lmms-eval's simple models."""
        return [self._answer(*request.args) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: a method that goes by the question would see the answer beside it."""
        raise UnsupportedError(
            f"{len(requests)} requests ask how likely an answer is, which a method that goes by the prompt "
            "would see; choose a task that generates its answers"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: one picture and one question at a time."""
        raise UnsupportedError(
            f"{len(requests)} requests have several rounds; choose a task of one question"
        )

    def _answer(
        self,
        context: str,
        asked: dict[str, Any],
        doc_to_visual: Any,
        doc_id: Any,
        task: str,
        split: str,
    ) -> str:
        pictures = list(doc_to_visual(self.task_dict[task][split][doc_id]) or ())
        if any(isinstance(picture, str) for picture in pictures):
            raise UnsupportedError(f"{task} asks about videos; choose a task of pictures")
        # Some tasks say where the picture stands; here pictures stand before the question.
        question = context.replace("<image>", "").strip()
        inputs = inputs_of(self.model, self.processor, pictures, question)
        settings = {name: asked[name] for name in _SAMPLING if asked.get(name) is not None}
        if not settings.get("temperature"):
            settings |= {"do_sample": False, "temperature": None, "top_p": None}
        else:
            settings["do_sample"] = True
        reduction = (
            nullcontext()
            if self.method is None or not pictures
            else reduce_tokens(self.model, self.method)
        )
        most = int(asked.get("max_new_tokens") or _NEW_TOKENS)
        with torch.inference_mode(), reduction:
            new = new_tokens(self.model, self.processor, inputs, **settings, max_new_tokens=most)
        text = str(self.processor.tokenizer.decode(new, skip_special_tokens=True))
        ends = asked.get("until") or ()
        for end in [ends] if isinstance(ends, str) else ends:
            text = text.split(end, 1)[0] if end else text
        return text.strip()
