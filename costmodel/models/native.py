"""Images at their own resolution: resized to whole tokens, within a budget of pixels.

Height and width become the nearest multiples of what one token covers; where they are beyond the most
pixels of an image, or below the fewest, both are scaled so that they are not. `smart_resize` of
image_processing_qwen2_vl.py and video_processing_qwen3_vl.py of `transformers`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from math import ceil, floor, sqrt
from typing import TYPE_CHECKING

from costmodel.models.geometry import Pieces, Seen, VideoRule, VisualInput
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from costmodel.quantities import Num

#: (height, width) of the image that stands for all where nothing is said, in pixels.
DEFAULT_IMAGE = (1024, 1024)
#: Frames of a second that Qwen's processors take.
FRAMES_PER_S = 2
#: Beyond this ratio of its sides no image is taken.
MOST_RATIO = 200


def resized(
    size: tuple[int, int], unit: int, least: float, most: float, frames: int = 1, tubelet: int = 1
) -> tuple[int, int]:
    """Return the (height, width) that an image of a size becomes, in pixels.

    Args:
        size: (height, width) of the image.
        unit: pixels along a side of what one token covers.
        least: fewest pixels of the result, over all frames.
        most: most pixels of the result, over all frames.
        frames: of the clip that it is one of.
        tubelet: frames that are taken together; the budget sees the nearest whole number of these.

    Raises:
        InvalidInputError: one side is more than 200 times the other, or `least` is more than `most`.

    >>> resized((1080, 1920), 28, 3136, 12845056)  # 39 x 69 tokens
    (1092, 1932)
    >>> resized((1080, 1920), 28, 3136, 1003520)  # 26 x 47: at most 1280 tokens
    (728, 1316)
    """
    height, width = size
    if least > most:
        raise InvalidInputError(f"min_pixels {least} is more than max_pixels {most}")
    if max(size) > MOST_RATIO * min(size):
        raise InvalidInputError(
            f"an image of {height}x{width} has sides in a ratio beyond {MOST_RATIO}, which this "
            "model's processor refuses"
        )
    high, wide = round(height / unit) * unit, round(width / unit) * unit
    deep = round(frames / tubelet) * tubelet
    if deep * high * wide > most:
        shrink = sqrt(frames * height * width / most)
        return tuple(max(unit, floor(n / shrink / unit) * unit) for n in size)  # type: ignore[return-value]
    if deep * high * wide < least:
        grow = sqrt(least / (frames * height * width))
        return tuple(ceil(n * grow / unit) * unit for n in size)  # type: ignore[return-value]
    return high, wide


@dataclass(frozen=True, slots=True)
class NativeGeometry:
    """Images of their own resolution, and clips as pairs of frames.

    Attributes:
        patch: pixels along a side of a patch.
        merge: patches along a side of a token.
        window: patches along a side of an attention window; 0 for none.
        least: fewest pixels of an image.
        most: most pixels of an image.
        tubelet: frames of a patch.
        least_video: fewest pixels of a clip's frames, over all of them where `clip_budget`.
        most_video: most pixels, likewise.
        clip_budget: whether the budget is that of a clip, not that of a frame.
        timestamps: whether the time of every pair of frames is written before it, between delimiters.

    >>> qwen = NativeGeometry(14, 2, 8, 3136, 12845056)
    >>> qwen.image((1344, 1344), exact=True)  # 48 x 48 tokens of 2 x 2 patches
    VisualInput(tokens=2304, crops=1, projected_tokens=2304)
    >>> qwen.seen([(1344, 1344)])  # 96 x 96 patches in 12 x 12 windows of 8 x 8
    Seen(patches=9216, pieces=((1, 9216),), windows=((144, 64),), grids=((1, 96, 96),))
    """

    patch: int
    merge: int
    window: int
    least: int
    most: int
    tubelet: int = 2
    least_video: int = 0
    most_video: int = 0
    clip_budget: bool = False
    timestamps: bool = False
    anyres: None = None
    among_others: None = None
    keeps_size: bool = True

    @property
    def unit(self) -> int:
        """Pixels along a side of what one token covers."""
        return self.patch * self.merge

    def budget(self, *, clip: bool) -> dict[str, int]:
        """Return the fewest and most pixels of an image, or of a clip's frames."""
        least, most = (self.least_video, self.most_video) if clip else (self.least, self.most)
        return {"min_pixels": least, "max_pixels": most}

    def limited(self, budget: Mapping[str, int]) -> NativeGeometry:
        """Return the same with another budget, which is a clip's as well.

        An image's most may be below a clip's own fewest: the side that is not given makes room.
        """
        least, most = budget.get("min_pixels"), budget.get("max_pixels")
        return replace(
            self,
            least=least or self.least,
            most=most or self.most,
            least_video=least or min(self.least_video, most or self.most_video),
            most_video=most or max(self.most_video, least or self.least_video),
        )

    @property
    def tokens_per_crop(self) -> int:
        """Tokens of the default image."""
        return self.image(None, exact=True).tokens

    @property
    def video(self) -> VideoRule:
        """Frames of the default image's size; an image is what is taken where nothing is said."""
        each = self.clip(self.tubelet, None, exact=True).tokens // self.tubelet
        return VideoRule(0, each, each, each)

    def grid(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Return the (rows, columns) of patches of an image."""
        height, width = resized(size or DEFAULT_IMAGE, self.unit, self.least, self.most)
        return height // self.patch, width // self.patch

    def clip_grid(self, frames: int, size: tuple[int, int] | None) -> tuple[int, int, int]:
        """Return pairs of frames, and the (rows, columns) of patches of each."""
        size = size or DEFAULT_IMAGE
        pairs = -(-frames // self.tubelet)
        if self.clip_budget and min(size) < self.unit:
            size = tuple(int(n * self.unit / min(size)) for n in size)  # type: ignore[assignment]
        budget = (self.unit, self.least_video, self.most_video)
        together = (max(frames, self.tubelet), self.tubelet) if self.clip_budget else ()
        height, width = resized(size, *budget, *together)
        return pairs, height // self.patch, width // self.patch

    def image(self, size: tuple[int, int] | None, *, exact: bool) -> VisualInput:  # noqa: ARG002
        """Return what an image gives: a token for every merge x merge patches."""
        rows, columns = self.grid(size)
        tokens = rows * columns // self.merge**2
        return VisualInput(tokens, 1, tokens)

    def clip(self, frames: int, size: tuple[int, int] | None, *, exact: bool) -> VisualInput:  # noqa: ARG002
        """Return what a clip gives: the tokens of an image for every pair of frames."""
        pairs, rows, columns = self.clip_grid(frames, size)
        tokens = pairs * rows * columns // self.merge**2
        return VisualInput(tokens, pairs, tokens)

    def text_of(self, frames: int) -> int:
        """Return the text tokens among a clip's frames: `<0.2 seconds>` and two delimiters for each pair.

        A pair's time is the mean of its frames', `FRAMES_PER_S` of which are a second. Qwen's tokenizer
        makes a token of each digit and of each other piece.

        >>> NativeGeometry(16, 2, 0, 65536, 16777216, timestamps=True).text_of(16)  # up to 7.2 seconds
        64
        """
        if not self.timestamps:
            return 0
        pairs = -(-frames // self.tubelet)
        seconds = ((k * self.tubelet + (self.tubelet - 1) / 2) / FRAMES_PER_S for k in range(pairs))
        return sum(2 + 5 + len(str(int(each))) for each in seconds)

    def seen(self, sizes: Sequence[tuple[int, int] | None], frames: int | None = None) -> Seen:
        """Return what the tower sees of images, or of a clip whose frames have the one size."""
        if frames is None:
            grids = Counter(map(self.grid, sizes))
        else:
            pairs, *grid = self.clip_grid(frames, next(iter(sizes), None))
            grids = Counter({(grid[0], grid[1]): pairs})
        return self.seen_of_grids((number, *grid) for grid, number in grids.items())

    def seen_of_grids(self, grids: Iterable[tuple[Num, int, int]]) -> Seen:
        """Return what the tower sees of pieces: how many there are of so many rows and columns of patches."""
        grids = tuple(grids)
        pieces: defaultdict[int, Num] = defaultdict(int)
        windows: defaultdict[int, Num] = defaultdict(int)
        for number, rows, columns in grids:
            pieces[rows * columns] += number
            for length, each in self._windows(rows, columns).items():
                windows[length] += number * each
        return Seen(_total(pieces), _pieces(pieces), _pieces(windows), grids)

    def seen_of(self, tokens: Num, images: Num = 1) -> Seen:
        """Return what the tower sees of images of so many tokens together, all of them whole windows.

        Where only a number of tokens is known, so is that of the patches, but not the grid: windows
        count as full ones and one that is cut, which no grid has less of.
        """
        patches = tokens * self.merge**2
        each = patches / (images + (images == 0))
        pieces: Pieces = ((images, each),)
        if not self.window:
            return Seen(patches, pieces)
        full = self.window**2
        return Seen(
            patches, pieces, ((patches // full, full), ((patches % full > 0) * 1, patches % full))
        )

    def _windows(self, rows: int, columns: int) -> Counter[int]:
        """Windows of a grid by their patches: those at its edges are cut."""
        found: Counter[int] = Counter()
        if self.window:
            for high, many in _cut(rows, self.window):
                for wide, some in _cut(columns, self.window):
                    found[high * wide] += many * some
        return found


def _cut(length: int, window: int) -> Iterable[tuple[int, int]]:
    """Windows along a side: their length and how many, the last one cut."""
    whole, rest = divmod(length, window)
    return [(n, many) for n, many in ((window, whole), (rest, 1)) if n and many]


def _pieces(found: Mapping[int, Num]) -> Pieces:
    return tuple((number, length) for length, number in sorted(found.items(), reverse=True))


def _total(found: Mapping[int, Num]) -> Num:
    return sum(number * length for length, number in found.items())
