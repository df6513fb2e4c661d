"""A picture of what a reduction kept: patches that stay are crisp, the others dimmed.

Methods that merge show more. Where tokens are merged into kept ones by weights (PruMerge), the dropped
patches carry the weight they are merged with; where patches are merged with each other (ToMe,
CrossGET, M3), each group has one colour and an outline; where tokens go at several layers (FitPrune),
the layer before which each one went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hardware_specs.errors import InvalidInputError, MissingDependencyError
from hardware_specs.files.writing import replacing
from token_reduction.apply.anatomy import dissect
from token_reduction.pictures.panels import build_panels, even_panels
from token_reduction.pictures.viewport import find_viewports, pixel_crops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from PIL.Image import Image

    from token_reduction.apply.record import ReductionRecord
    from token_reduction.pictures.panels import Panel

_PANEL = 640
_MARGIN = 16
_LINE = 22
_BACKGROUND = (250, 250, 250)
_INK = (30, 30, 30)
_EDGE = (255, 255, 255)
_Entry: TypeAlias = "tuple[str, tuple[int, int, int] | None]"
#: Anchors of viridis: even in lightness, so it reads in print and for colour-blind people.
_SCALE = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=float
)


def save_overlay(
    path: Path, image: Image, model: torch.nn.Module, record: ReductionRecord, image_processor: Any
) -> None:
    """Draw what was kept of an image as `draw_overlay` does, and save it; the path's suffix names the format.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidInputError: the run was of no image, of several, of a video, or not traced.
        OutputError: the file cannot be written.
    """
    from PIL import Image as Images

    picture = draw_overlay(image, model, record, image_processor)
    form = Images.registered_extensions().get(path.suffix.lower())
    if form not in Images.SAVE:
        raise InvalidInputError(f"{str(path)!r} does not end as a picture does; give out.png")
    with replacing(path) as file:
        picture.save(file, format=form)


def draw_overlay(
    image: Image, model: torch.nn.Module, record: ReductionRecord, image_processor: Any
) -> Image:
    """Draw what was kept of an image, given in RGB as the model's own processor got it.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidInputError: the run was of no image, of several, of a video, or not traced.
    """
    if dissect(model).three_axes:
        _, rows, columns = (int(n) for n in image_processor(images=image)["image_grid_thw"][0])
        merge = int(image_processor.merge_size)
        panels = even_panels(record, image.size, (rows // merge, columns // merge))
    else:
        views = find_viewports(lambda given: pixel_crops(image_processor, given), *image.size)
        panels = build_panels(model, record, views)
    return _sheet(record, panels, [image] * len(panels), _PANEL)


def draw_clip(
    frames: Sequence[Image], record: ReductionRecord, grid: tuple[int, int], *, across: int = 4
) -> Image:
    """Draw what was kept of each frame of a clip, as a model sees frames that it resizes whole.

    Args:
        frames: of one size, in RGB; of those that a tower takes two by two the first of each is drawn.
        record: of the run on this one clip.
        grid: rows and columns of a frame's tokens: 14 x 14 of LLaVA-OneVision.
        across: frames beside each other.

    Raises:
        MissingDependencyError: Pillow is not installed.
        InvalidInputError: the run was of another clip, or of several.
    """
    count = record.tokens_before[0] // (grid[0] * grid[1]) if record.tokens_before else 0
    if not count or len(frames) % count:
        raise InvalidInputError(
            f"{len(frames)} frames were given, and the run saw {count} of {grid[0]} x {grid[1]} tokens; "
            "give the run's frames and its grid"
        )
    every = len(frames) // count
    panels = even_panels(record, frames[0].size, grid, count)
    return _sheet(record, panels, frames[::every], 2 * _PANEL // across, across)


def _sheet(
    record: ReductionRecord,
    panels: Sequence[Panel],
    images: Sequence[Image],
    side: int,
    across: int | None = None,
) -> Image:
    """Put panels beside each other, with the method above and what the colours mean below."""
    try:
        from PIL import Image as Images
    except ImportError as error:
        raise MissingDependencyError("pillow", "profile") from error
    scale = _Heat.of(panels, logarithmic=record.unit == "crop")
    pictures = [
        _draw_panel(image, panel, scale, side) for image, panel in zip(images, panels, strict=True)
    ]
    across = min(across or len(pictures), len(pictures))
    wide, high = (max(getattr(each, name) for each in pictures) for name in ("width", "height"))
    lines = caption(record)
    width = max(across * (wide + _MARGIN) + _MARGIN, 580)
    top = _MARGIN + _LINE * len(lines) + 8
    below = top + -(-len(pictures) // across) * (high + _LINE + 4)
    sheet = Images.new("RGB", (width, below + 2 * _LINE + 12), _BACKGROUND)
    corners = [
        (_MARGIN + number % across * (wide + _MARGIN), top + number // across * (high + _LINE + 4))
        for number in range(len(pictures))
    ]
    _write_above_and_below(sheet, lines, panels, pictures, corners)
    _draw_legend(sheet, _legend(record, panels, scale), below)
    return sheet


def caption(record: ReductionRecord) -> list[str]:
    """Return the lines above the picture: the method, and how many tokens are left."""
    method = record.method
    before, after = record.visual_tokens
    settings = [] if method.keep is None else [f"keep={method.keep:g}"]
    if method.layer is not None and method.place == "llm-layer":
        settings.append(f"layer={method.layer}")
    if method.variant != "program":
        settings.append(method.variant)
    name = f"{method.name} ({', '.join(settings)})" if settings else method.name
    share = 100 * after / before if before else 0.0
    return [name, f"{after} of {before} visual tokens left ({share:.1f} %)"]


@dataclass(frozen=True, slots=True)
class _Heat:
    """The range of a colour scale; weights are spread over it by their logarithm."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def of(cls, panels: Sequence[Panel], *, logarithmic: bool) -> _Heat | None:
        values = [panel.heat[~np.isnan(panel.heat)] for panel in panels if panel.heat is not None]
        joined = np.concatenate(values) if values else np.zeros(0)
        if not len(joined):
            return None
        return cls(float(joined.min()), float(joined.max()), logarithmic)

    def colour(self, value: np.ndarray) -> np.ndarray:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = np.log(value), float(np.log(low)), float(np.log(high))
        # One value alone is the light end, which stands out from what is dimmed.
        share = (value - low) / (high - low) if high > low else value * 0 + 1
        anchors = np.linspace(0, 1, len(_SCALE))
        return np.stack([np.interp(share, anchors, channel) for channel in _SCALE.T], axis=-1)


def _draw_panel(image: Image, panel: Panel, heat: _Heat | None, side: int) -> Image:
    from PIL import Image as Images

    zoom = side / max(image.size)
    size = (max(1, round(image.width * zoom)), max(1, round(image.height * zoom)))
    bright = np.asarray(image.resize(size, Images.Resampling.LANCZOS), dtype=float)
    grey = bright @ np.array([0.299, 0.587, 0.114])
    outside = 0.75 * 255 + 0.25 * grey[..., None].repeat(3, axis=2)
    dimmed = 14 + 0.30 * grey[..., None].repeat(3, axis=2) + 0.08 * bright
    shown = outside.copy()
    limits = np.array([size[0], size[1], size[0], size[1]])
    boxes = np.clip(np.round(panel.boxes * zoom), 0, limits).astype(int)
    order = np.argsort(panel.kept, kind="stable")
    for cell in order:
        left, top, right, bottom = boxes[cell]
        block = (slice(top, bottom), slice(left, right))
        if panel.kept[cell]:
            shown[block] = bright[block]
            continue
        shown[block] = dimmed[block]
        if heat is not None and panel.heat is not None and not np.isnan(panel.heat[cell]):
            colour = heat.colour(np.asarray(panel.heat[cell]))
            shown[block] = 0.45 * dimmed[block] + 0.55 * colour
    if panel.group is not None:
        _draw_groups(shown, bright, panel, boxes)
    else:
        _outline_kept(shown, panel, boxes)
    return Images.fromarray(np.clip(shown, 0, 255).astype(np.uint8))


def _draw_groups(shown: np.ndarray, bright: np.ndarray, panel: Panel, boxes: np.ndarray) -> None:
    """Give each group of merged patches its mean colour, and a line where groups meet."""
    assert panel.group is not None  # noqa: S101  (the caller looked)
    owner = np.full(shown.shape[:2], -2, dtype=int)
    for cell, (left, top, right, bottom) in enumerate(boxes):
        owner[top:bottom, left:right] = panel.group[cell]
    inside = owner >= 0
    if not inside.any():
        return
    count = int(owner.max()) + 1
    weight = np.bincount(owner[inside], minlength=count).clip(1)
    mean = np.stack(
        [np.bincount(owner[inside], bright[inside][:, c], count) / weight for c in range(3)], axis=1
    )
    shown[inside] = 0.35 * bright[inside] + 0.65 * mean[owner[inside]]
    lines = _borders(owner) & (owner > -2)
    shown[lines] = 0.5 * shown[lines] + 0.5 * np.array(_EDGE)


def _outline_kept(shown: np.ndarray, panel: Panel, boxes: np.ndarray) -> None:
    """Draw a thin light line around what is kept, once per region."""
    mask = np.zeros(shown.shape[:2], dtype=bool)
    for left, top, right, bottom in boxes[panel.kept]:
        mask[top:bottom, left:right] = True
    if panel.kept.all():
        return
    shown[_borders(mask)] = _EDGE


def _borders(regions: np.ndarray) -> np.ndarray:
    """Where a pixel differs from the one above it or left of it."""
    edge = np.zeros(regions.shape, dtype=bool)
    edge[:, 1:] |= regions[:, 1:] != regions[:, :-1]
    edge[1:, :] |= regions[1:, :] != regions[:-1, :]
    return edge


def _legend(record: ReductionRecord, panels: Sequence[Panel], heat: _Heat | None) -> list[_Entry]:
    """Entries below the picture: a text and its swatch; None for the colour scale."""
    unseen: _Entry = ("not seen: faded", (215, 215, 215))
    if any(panel.group is not None for panel in panels):
        return [("one token: one colour, outlined", (150, 150, 150)), unseen]
    entries: list[_Entry] = [
        ("kept: crisp", (250, 250, 250)),
        ("dropped: dimmed", (60, 60, 60)),
        unseen,
    ]
    if heat is not None:
        if record.unit == "sequence" and heat.low == heat.high:
            entries.append((f"dropped before layer {heat.low:.0f}", (253, 231, 37)))
        elif record.unit == "sequence":
            entries.append((f"dropped before layer {heat.low:.0f} ... {heat.high:.0f}", None))
        else:
            entries.append((f"merge weight {heat.low:.2g} ... {heat.high:.2g} (log)", None))
    return entries


def _write_above_and_below(
    sheet: Image,
    lines: Sequence[str],
    panels: Sequence[Panel],
    pictures: Sequence[Image],
    corners: Sequence[tuple[int, int]],
) -> None:
    """Put the pictures at their corners, the lines above them and a note below each."""
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(sheet)
    head, small = ImageFont.load_default(18), ImageFont.load_default(14)
    for number, line in enumerate(lines):
        font = head if number == 0 else small
        draw.text((_MARGIN, _MARGIN + number * _LINE), line, fill=_INK, font=font)
    for panel, picture, (x, top) in zip(panels, pictures, corners, strict=True):
        sheet.paste(picture, (x, top))
        note = f"{panel.title}: {int(panel.kept.sum())} of {len(panel.kept)} kept"
        if panel.group is not None:
            note = f"{panel.title}: {len(np.unique(panel.group))} tokens from {len(panel.kept)} patches"
        draw.text((x, top + picture.height + 4), note, fill=_INK, font=small)


def _draw_legend(sheet: Image, legend: Sequence[_Entry], y: int) -> None:
    from PIL import ImageDraw, ImageFont

    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    x = _MARGIN
    for text, colour in legend:
        swatch = 66 if colour is None else 18
        if x + swatch + draw.textlength(text, font=small) > sheet.width - _MARGIN:
            x, y = _MARGIN, y + _LINE
        if colour is None:
            for step in range(60):
                shade = _Heat(0.0, 59.0).colour(np.asarray(float(step)))
                draw.line((x + step, y + 2, x + step, y + 14), fill=tuple(int(c) for c in shade))
        else:
            draw.rectangle((x, y + 2, x + 12, y + 14), fill=colour, outline=_INK)
        x += swatch
        draw.text((x, y), text, fill=_INK, font=small)
        x += int(draw.textlength(text, font=small)) + 14
