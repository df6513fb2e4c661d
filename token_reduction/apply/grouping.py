"""Which crops of a forward make one image, or one clip.

Families that cut an image into tiles hand the language model each tile by itself. Which tiles are one
image, the caller says, or the prompt does as the family's own processor lays it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hardware_specs.errors import InvalidInputError
from hardware_specs.showing import shown
from token_reduction.apply.calls import PIXELS, encode_in_forwards, split_items

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from costmodel.models import Family
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.splice import Prompt


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which crops make one image or one clip, as far as the caller says.

    Attributes:
        frames: images that make one clip; 0 where images are images.
        crops: of every image, in the order of the prompts, or of each alike; empty where the prompt tells.
    """

    frames: int = 0
    crops: int | tuple[int, ...] = ()

    def items(
        self, parts: Parts, modality: str, output: Any, pixels: Tensor, prompt: Prompt
    ) -> list[Tensor]:
        """Return the unreduced tokens of each image or clip, [n, d].

        Args:
            parts: the model.
            modality: "image" or "video".
            output: of the model's encoder.
            pixels: what it encoded.
            prompt: ids and padding.

        Raises:
            InvalidInputError: crops that do not fill their images or clips.
        """
        if parts.family.tiles is None or modality == "video":
            return split_items(parts, modality, output.pooler_output, pixels)
        tokens = torch.cat([part.flatten(0, -2) for part in output.pooler_output])
        crops = len(output.last_hidden_state)
        each = len(tokens) // crops
        counts = self._counts(crops, each, prompt, parts)
        return list(torch.split(tokens, [count * each for count in counts]))

    def pieces(
        self, parts: Parts, modality: str, output: Any, pixels: Tensor, prompt: Prompt
    ) -> list[int]:
        """Return the tokens of what stands by itself in a prompt: images and clips, lone tiles and frames."""
        alone = parts.family.has_lone_tiles or self.frames
        if modality == "image" and alone:
            crops = len(output.last_hidden_state)
            return [sum(part[..., 0].numel() for part in output.pooler_output) // crops] * crops
        return [len(item) for item in self.items(parts, modality, output, pixels, prompt)]

    def _counts(self, crops: int, each: int, prompt: Prompt, parts: Parts) -> list[int]:
        """Crops of each image or clip."""
        if self.frames:
            if crops % self.frames:
                raise InvalidInputError(
                    f"frames={self.frames} was given, and the forward brings {crops} images, which are not "
                    "as many for every clip; give clips of one length, and pictures in a call of their own"
                )
            return [self.frames] * (crops // self.frames)
        said = self.crops
        if not said:
            return crops_in(prompt, parts.placeholders["image"], crops, each, parts.family.tiles)
        counts = [said] * (crops // said) if isinstance(said, int) else list(said)
        if sum(counts) != crops:
            raise InvalidInputError(
                f"crops={shown(said)} was given, and the forward brings {crops} crops; give the crops of "
                "every image, the whole image among them"
            )
        return counts


@dataclass(slots=True)
class EncodedPieces:
    """The pieces of what a model encodes in a forward.

    Attributes:
        parts: the model.
        grouping: which crops make one image or clip.
        prompt: of the running forward; None where nothing is to be noted.
    """

    parts: Parts
    grouping: Grouping
    prompt: Prompt | None = None
    #: Of each modality, the tokens of every piece.
    _lengths: dict[str, list[int]] = field(default_factory=dict)

    def attach(self, patches: Patches) -> None:
        """Watch the encoders."""
        encode_in_forwards(self.parts, patches)
        for modality in self.parts.placeholders:
            name = f"get_{modality}_features"
            encoder = getattr(self.parts.base, name)
            patches.replace(self.parts.base, name, self._watched(modality, encoder))

    def _watched(self, modality: str, encoder: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            known = dict(self._lengths)
            output = encoder(*args, **kwargs)
            if self.prompt is not None:
                given = {**kwargs, PIXELS[modality][0]: args[0]} if args else kwargs
                pixels = next(given[name] for name in PIXELS[modality] if name in given)
                lengths = self.grouping.pieces(self.parts, modality, output, pixels, self.prompt)
                # Not what a clip's encoder notes by going through that of images.
                self._lengths = {**known, modality: lengths}
            return output

        return watched

    def numbered(self, prompt: Prompt) -> np.ndarray:
        """Return which piece each token of a prompt is of, [b, s], numbered through; -1 for text."""
        which = np.full(prompt.ids.shape, -1)
        for modality, lengths in self._lengths.items():
            marks = prompt.ids == self.parts.placeholders[modality]
            which[marks] = np.repeat(np.arange(len(lengths)), lengths) + which.max() + 1
        return which

    def forget(self) -> None:
        """Drop what a forward left behind."""
        self.prompt = None
        self._lengths.clear()


def crops_in(
    prompt: Prompt, placeholder: int, crops: int, each: int, layout: str | None
) -> list[int]:
    """Return the crops of each image, as a processor lays them out in a prompt.

    Args:
        prompt: ids and padding.
        placeholder: the id that stands for a visual token.
        crops: all there are.
        each: tokens of one.
        layout: how the family's tiles stand (`Family.tiles`).

    Returns:
        One for each crop where tiles stand apart and nothing tells them from images.

    Raises:
        InvalidInputError: placeholders that are no whole crops.
    """
    counts = []
    for ids in prompt.ids if layout != "apart" else ():
        places = np.flatnonzero(ids == placeholder)
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
        if any(len(run) % each for run in runs):
            raise InvalidInputError(
                f"the prompt holds runs of {shown([len(run) for run in runs])} image placeholders (id "
                f"{placeholder}), and a crop has {each}; build ids and pixels with the model's own processor"
            )
        row = [len(run) // each for run in runs]
        counts += row if layout == "in a row" else _up_to_overviews(ids, runs, row)
    # The model says by itself what is wrong with placeholders that are not as many.
    return counts if sum(counts) == crops else [1] * crops


def _up_to_overviews(ids: np.ndarray, runs: Sequence[np.ndarray], crops: list[int]) -> list[int]:
    """Join the crops in front of each overview to it.

    What follows an overview stands before every crop, too, and then its name; the last crop of all is an
    overview, and so is every other that goes by its name.
    """
    if not runs:
        return []
    end = int(runs[-1][-1]) + 1
    behind = int(ids[end]) if end < len(ids) else -1
    names: list[tuple[int, ...]] = []
    start = 0
    for run in runs:
        text = ids[start : run[0]]
        marks = np.flatnonzero(text == behind)
        if not len(marks):
            return crops
        names.append(tuple(text[marks[-1] + 1 :].tolist()))
        start = int(run[-1]) + 1
    joined, held = [], 0
    for name, count in zip(names, crops, strict=True):
        held += count
        if name == names[-1]:
            joined.append(held)
            held = 0
    return joined


def checked_grouping(
    family: Family, frames: int | None, crops: int | Sequence[int] | None
) -> Grouping:
    """Return what `reduce_tokens` was told.

    Raises:
        InvalidInputError: no whole numbers, both at once, or for a family whose call says it itself.
    """
    if frames is not None and not family.frames_as_images:
        raise InvalidInputError(
            f"frames={shown(frames)} was given, and a call of {family.label} says itself which pixels are a "
            "clip's; leave frames out and give pixel_values_videos where the model takes them"
        )
    if crops is not None and family.tiles is None:
        raise InvalidInputError(
            f"crops={shown(crops)} was given, and a call of {family.label} says itself which pixels are an "
            "image's; leave crops out"
        )
    if frames is not None and crops is not None:
        raise InvalidInputError(
            f"frames={shown(frames)} and crops={shown(crops)} were given, and a frame is one crop; leave one "
            "out"
        )
    if frames is not None and not _whole(frames):
        raise InvalidInputError(f"frames={shown(frames)} must be a whole number, 1 or more")
    if crops is None:
        return Grouping(int(frames or 0))
    if _whole(crops):
        return Grouping(crops=int(crops))  # type: ignore[arg-type]
    listed = isinstance(crops, Iterable) and not isinstance(crops, (str, bytes))
    several = tuple(crops) if listed else ()  # type: ignore[arg-type]
    if not several or not all(map(_whole, several)):
        raise InvalidInputError(
            f"crops={shown(crops)} must be the crops of every image, or one number for each: whole numbers, "
            "1 or more"
        )
    return Grouping(crops=tuple(map(int, several)))


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
