"""From reduced crops to reduced images and videos.

The projector is where every crop's tokens pass: they are reduced before it or after it, or they come
short already when the vision tower's layers shrank them. Crops may end up with different lengths; the
projector then sees them in one row, without padding, and they are padded only between there and the
place where the model's own code hands them back.

Reduced crops form no grid any more, so a tiled model cannot unpad them or end its rows with newline
tokens: the crops are joined one after the other, overview first, as HiRED's port of PruMerge to
LLaVA-NeXT does.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hardware_specs.errors import UnsupportedError
from token_reduction.apply.geometry import pack_points
from token_reduction.tokens.observation import observed
from token_reduction.tokens.reduced import Reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord


class Item(NamedTuple):
    """One image or video of a forward.

    Attributes:
        tokens: [n, d] as the language model would see them.
        modality: "image" or "video".
        number: which one of its modality, from 0.
        size: (height, width) of a tiled image, or None.
        frames: of a video, or pairs of frames where the tower makes one token list of two; 1 of an image.
        tail: tokens behind the last frame.
    """

    tokens: Tensor
    modality: str
    number: int
    size: tuple[int, int] | None
    frames: int = 1
    tail: int = 0

    @property
    def by_frame(self) -> Tensor:
        """The tokens of a video by its frames, [t, p, d], without its tail."""
        inside = self.tokens[: len(self.tokens) - self.tail]
        return inside.view(self.frames, -1, inside.shape[-1])


@dataclass(slots=True)
class Crops:
    """The crops of one modality in one forward.

    Args:
        parts: the model.
        record: what the reduction did.
        reduce: reduces patches [c, n, w]; None when the tower's layers do.
        before_projector: whether `reduce` comes before the projector.
        includes_class_token: whether what `reduce` gives holds the class token already.
        tower_counts: from whether the class token is among them, the tokens of each crop as the
            tower left them; None when they do not differ.
    """

    parts: Parts
    record: ReductionRecord
    reduce: Callable[[Tensor, Tower], Reduced | list[Reduced]] | None
    before_projector: bool
    includes_class_token: bool = False
    tower_counts: Callable[[bool], list[int] | None] = lambda _: None
    #: Tokens of each crop now.
    counts: list[int] = field(default_factory=list)
    #: Tokens per crop without the method; per item for tiled images.
    tokens_per_crop: int = 0
    packed_before: list[int] | None = None
    _has_class: bool = False
    _ragged: bool = False
    _tower: Tower = field(init=False)

    def attach(self, patches: Patches) -> None:
        """Put the hooks on towers and projector."""
        for tower in self.parts.towers:
            patches.before(tower.module, self._saw_tower(tower))
        patches.before(self.parts.projector, self._before_projector)
        patches.after(self.parts.projector, self._after_projector)
        if self.parts.is_tiled:
            patches.replace(self.parts.base, "pack_image_features", self._pack)

    def begin(self, modality: str, *, has_class: bool) -> None:
        """Start on the crops of a modality.

        Args:
            modality: "image" or "video".
            has_class: whether the class token goes to the projector too, first.

        Raises:
            UnsupportedError: the model pools each frame on its grid after the projector.
        """
        family = self.parts.family
        # A reduction beside the projector sees what was pooled before it; one in the tower does not.
        pools = family.pools_frames is not None and (
            family.pools_frames == "after projector" or self.reduce is None
        )
        if modality == "video" and pools:
            raise UnsupportedError(
                f"{self.record.method.name} leaves no grid of patches, and {family.label} pools "
                "every video frame on its grid; divprune, fastv or vtw work on its videos"
            )
        self.counts = []
        self.packed_before = None
        self._has_class = has_class

    def items(self, features: Any, count: int) -> tuple[list[Tensor], list[int]]:
        """Return the tokens of each of `count` images or videos, [m, d], and how many each had before."""
        if self.packed_before is not None:
            return list(features), self.packed_before
        if not isinstance(features, torch.Tensor):
            features = torch.stack(list(features))
        crops = features.reshape(len(self.counts), -1, features.shape[-1])
        per_item = len(self.counts) // count
        joined = [
            self._join(crops[start : start + per_item], start)
            for start in range(0, len(self.counts), per_item)
        ]
        return joined, [self.tokens_per_crop * per_item] * count

    def _join(self, crops: Tensor, first: int) -> Tensor:
        counts = self.counts[first : first + len(crops)]
        if all(count == crops.shape[1] for count in counts):
            return crops.flatten(0, 1)
        return torch.cat([crop[:count] for crop, count in zip(crops, counts, strict=True)])

    def _saw_tower(self, tower: Tower) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, _kwargs: Any) -> None:
            self._tower = tower

        return hook

    def _before_projector(self, _module: Any, args: Any, kwargs: Any) -> Any:
        features: Tensor = args[0]
        self._ragged = False
        if self.reduce is None:
            counts = self.tower_counts(self._has_class)
            self.tokens_per_crop = self._tower.patches + self._has_class
            self.counts = counts or [features.shape[1]] * features.shape[0]
            if counts is None:
                return None
            return (
                self._flat([crop[:n] for crop, n in zip(features, counts, strict=True)]),
                *args[1:],
            ), kwargs
        if not self.before_projector:
            return None
        self.tokens_per_crop = features.shape[1]
        return (self._reduced(features), *args[1:]), kwargs

    def _after_projector(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        if self.reduce is not None and not self.before_projector:
            # A bridge that merges patches has fewer of them behind it.
            self.tokens_per_crop = output.shape[1]
            return self._reduced(output)
        if self._ragged:
            rows = torch.split(output[0], self.counts)
            return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        return output

    def _reduced(self, features: Tensor) -> Tensor:
        assert self.reduce is not None  # noqa: S101  (the callers looked)
        with observed("reduction"):
            beside = self._has_class and not self.includes_class_token
            lead = features[:, :1] if beside else None
            patches = features[:, 1:] if self._has_class else features
            result = self.reduce(patches, self._tower)
            self._note(result)
            tokens = result.tokens if isinstance(result, Reduced) else [r.tokens for r in result]
            self.counts = [len(crop) + beside for crop in tokens]
            if isinstance(tokens, list):
                if len(set(self.counts)) > 1:
                    if lead is not None:
                        tokens = [torch.cat(pair) for pair in zip(lead, tokens, strict=True)]
                    return self._flat(tokens)
                tokens = torch.stack(tokens)
            return tokens if lead is None else torch.cat((lead, tokens), dim=1)

    def _flat(self, crops: Sequence[Tensor]) -> Tensor:
        """Set crops of different lengths in one row for the projector."""
        self._ragged = True
        return torch.cat(list(crops)).unsqueeze(0)

    def _note(self, result: Reduced | list[Reduced]) -> None:
        record = self.record
        record.unit = "crop"
        if isinstance(result, list):
            for one in result:
                record.add(one, batched=False)
        else:
            record.add(result, batched=True)

    def _pack(self, image_features: Any, image_sizes: Any, *more: Any, **options: Any) -> Any:
        """Stand in for the model's packing of tiles: join what is left of them."""
        base: Any = type(self.parts.base)
        names = list(inspect.signature(base.pack_image_features).parameters)[3:]
        options |= dict(zip(names, more, strict=False))
        # Read before the tower was launched; asking the device now would wait for it.
        sizes: list[Any] = list(self.record.image_sizes)
        if len(sizes) != len(image_features):
            sizes = torch.as_tensor(image_sizes).tolist()
        crops = [len(tiles) for tiles in image_features]
        places = pack_points(self.parts, self._tower, crops, sizes, **options)
        self.packed_before = [len(item.points) for item in places]
        joined, first = [], 0
        for tiles in image_features:
            joined.append(self._join(tiles, first))
            first += len(tiles)
        lengths = torch.tensor([len(item) for item in joined], device=joined[0].device)
        return joined, lengths
