"""From pictures to token counts: what one image or one clip gives.

Every family says its geometry: `CropGeometry` holds for those that resize an image to one crop, cut it
into tiles of that size, or take the frames of a clip one by one. A family that keeps an image's own
resolution brings another object with the same methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costmodel.models.anyres import AnyRes
    from costmodel.quantities import Num


class VisualInput(NamedTuple):
    """What one image or clip gives.

    Attributes:
        tokens: visual tokens that reach the language model.
        crops: crops or frames through the vision tower.
        projected_tokens: tokens through the projector.
    """

    tokens: int
    crops: int
    projected_tokens: int


#: How many there are of each length.
Pieces: TypeAlias = "tuple[tuple[Num, Num], ...]"


class Seen(NamedTuple):
    """What a tower that takes images at their own resolution sees of a sample.

    Attributes:
        patches: all of them.
        pieces: images, or frames of a clip, by their patches: each attends to itself.
        windows: windows by their patches; empty where the tower has none.
        grids: how many pieces have so many rows and columns of patches; empty where only their number
            of patches is known.
    """

    patches: Num
    pieces: Pieces
    windows: Pieces = ()
    grids: tuple[tuple[Num, int, int], ...] = ()

    def times(self, number: Num) -> Seen:
        """Return what it sees of so many samples of this kind.

        >>> Seen(128, ((2, 64),)).times(3)
        Seen(patches=384, pieces=((6, 64),), windows=(), grids=())
        """
        pieces, windows = (
            tuple((many * number, length) for many, length in each)
            for each in (self.pieces, self.windows)
        )
        grids = tuple((many * number, *grid) for many, *grid in self.grids)
        return Seen(self.patches * number, pieces, windows, grids)  # type: ignore[arg-type]

    def beside(self, other: Seen) -> Seen:
        """Return what it sees of two kinds together.

        >>> Seen(128, ((2, 64),)).beside(Seen(32, ((1, 32),))).pieces
        ((2, 64), (1, 32))
        """
        return Seen(
            self.patches + other.patches,
            self.pieces + other.pieces,
            self.windows + other.windows,
            self.grids + other.grids,
        )

    def part(self, kept: Num, of: Num) -> Seen:
        """Return what is left where `kept` of `of` patches are, all pieces and windows shrunk alike.

        >>> Seen(128, ((2, 64),), ((8, 16),)).part(1, 4)
        Seen(patches=32, pieces=((2, 16),), windows=((8, 4),), grids=())
        """
        pieces, windows = (
            tuple((many, _part(length, kept, of)) for many, length in each)
            for each in (self.pieces, self.windows)
        )
        return Seen(_part(self.patches, kept, of), pieces, windows)


class Part(NamedTuple):
    """The images of one size among others.

    Attributes:
        images: how many.
        tokens: visual tokens of all of them.
        crops: crops of all of them.
        projected_tokens: tokens through the projector, likewise.
        seen: what a tower sees of them that takes images at their own resolution; None for others.
    """

    images: int
    tokens: Num
    crops: int
    projected_tokens: Num
    seen: Seen | None = None


def _part(number: Num, kept: Num, of: Num) -> Num:
    """Return a share of a number, whole where it is."""
    share: Num = number * kept / of
    return int(share) if isinstance(share, float) and share.is_integer() else share


class VideoRule(NamedTuple):
    """How a model turns frames into tokens.

    Attributes:
        default_frames: frames of a clip when nothing is said, or 0 where an image is the default.
        tokens_per_frame: tokens per frame that reach the language model, as papers count.
        exact_tokens_per_frame: the same as `transformers` runs it.
        projected_per_frame: tokens per frame through the projector, as papers count; `transformers`
            sends those plus what `exact_tokens_per_frame` has more.
        tail_tokens: tokens after the last frame.
        as_tiles: whether a clip looks like an image of as many tiles.
    """

    default_frames: int
    tokens_per_frame: int
    exact_tokens_per_frame: int
    projected_per_frame: int
    tail_tokens: int = 0
    as_tiles: bool = False

    @property
    def carries_class_token(self) -> bool:
        """Whether `transformers` sends a token more per frame than papers count."""
        return self.exact_tokens_per_frame > self.tokens_per_frame

    def clip(self, frames: int, *, exact: bool) -> VisualInput:
        """Return what a clip of so many frames gives, as papers count or as `transformers` runs it."""
        each = self.exact_tokens_per_frame if exact else self.tokens_per_frame
        projected = self.projected_per_frame + each - self.tokens_per_frame
        return VisualInput(frames * each + self.tail_tokens, frames, frames * projected)


class Geometry(Protocol):
    """What the cost model asks of a family's geometry."""

    @property
    def anyres(self) -> AnyRes | None:
        """How an image is cut into tiles, or None where it is one crop."""

    @property
    def video(self) -> VideoRule | None:
        """How frames become tokens, or None where there are none."""

    @property
    def tokens_per_crop(self) -> int:
        """Visual tokens per crop of an image before any merging."""

    @property
    def among_others(self) -> VisualInput | None:
        """What each of several images in one prompt gives, or None where it is what one alone does."""

    def image(self, size: tuple[int, int] | None, *, exact: bool) -> VisualInput:
        """Return what an image of (height, width) pixels gives; None is the default image.

        `exact` counts as `transformers` runs it, not as papers do.
        """

    def clip(self, frames: int, size: tuple[int, int] | None, *, exact: bool) -> VisualInput:
        """Return what a clip of frames of (height, width) pixels gives; only asked where there is a `video`.

        The size counts where `keeps_size`; None is the default image's.
        """

    def text_of(self, frames: int) -> int:
        """Return the text tokens that the processor puts among the frames of a clip."""

    @property
    def keeps_size(self) -> bool:
        """Whether images and frames keep their own resolution, so that a tower's patches follow it."""

    def budget(self, *, clip: bool) -> dict[str, int]:
        """Return what limits an image, or a clip, by the names of `estimate`'s arguments."""

    def limited(self, budget: Mapping[str, int]) -> Geometry:
        """Return the same with other limits, by the names that `budget` has."""

    def seen(
        self, sizes: Sequence[tuple[int, int] | None], frames: int | None = None
    ) -> Seen | None:
        """Return what the tower sees of images, or of a clip; None where a crop says it all."""

    def seen_of(self, tokens: Num, images: Num = 1) -> Seen | None:
        """Return what the tower sees where only a number of tokens is known of some images."""


def images(
    geometry: Geometry, sizes: Sequence[tuple[int, int] | None], *, exact: bool
) -> VisualInput:
    """Return what the images of one prompt give together, by the size of each as in `Geometry.image`.

    >>> images(CropGeometry(576), [None, (480, 640)], exact=True)
    VisualInput(tokens=1152, crops=2, projected_tokens=1152)
    """
    each = geometry.among_others
    if each is not None and len(sizes) > 1:
        return VisualInput(*(len(sizes) * count for count in each))
    # The same size is looked up once: a grid of tiles is found by trying dozens.
    alone = {size: geometry.image(size, exact=exact) for size in dict.fromkeys(sizes)}
    counts = zip(*(alone[size] for size in sizes), strict=True)
    return VisualInput(*map(sum, counts)) if sizes else VisualInput(0, 0, 0)


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """One crop of fixed size per image, or tiles and the whole image, or the frames of a clip.

    Attributes:
        tokens_per_crop: features read per crop, all of which the projector sees.
        anyres: how an image is cut into tiles, or None where it is one crop.
        video: how frames become tokens, or None where there are none.
        among_others: what each of several images in one prompt gives, where that is not what one
            image alone does.

    >>> CropGeometry(576).image((480, 640), exact=True)
    VisualInput(tokens=576, crops=1, projected_tokens=576)
    """

    tokens_per_crop: int
    anyres: AnyRes | None = None
    video: VideoRule | None = None
    among_others: VisualInput | None = None
    keeps_size: bool = False

    def text_of(self, frames: int) -> int:  # noqa: ARG002
        """Frames follow each other without text."""
        return 0

    def budget(self, *, clip: bool) -> dict[str, int]:  # noqa: ARG002
        """Nothing limits what is resized to one crop, or cut along a grid of the config's."""
        return {}

    def limited(self, budget: Mapping[str, int]) -> CropGeometry:  # noqa: ARG002
        """Return the same: there is no limit."""
        return self

    def seen(self, sizes: object, frames: int | None = None) -> None:
        """Every crop has the tower's own resolution."""

    def seen_of(self, tokens: Num, images: Num = 1) -> None:
        """Every crop has the tower's own resolution."""

    def clip(self, frames: int, size: object, *, exact: bool) -> VisualInput:  # noqa: ARG002
        """Return what a clip gives; its frames are resized to the tower's crop."""
        assert self.video is not None  # noqa: S101 - callers checked; narrows the type
        return self.video.clip(frames, exact=exact)

    def image(self, size: tuple[int, int] | None, *, exact: bool) -> VisualInput:
        """Return what an image gives; papers count the largest grid without its newline tokens."""
        anyres = self.anyres
        if anyres is None:
            return VisualInput(self.tokens_per_crop, 1, self.tokens_per_crop)
        shown = size or anyres.largest
        crops = anyres.crops(*shown)
        features = crops * self.tokens_per_crop
        tokens = features if size is None and not exact else anyres.tokens(*shown)
        return VisualInput(tokens, crops, features)
