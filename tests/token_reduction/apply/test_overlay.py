"""The overlay: crops found through the processor, patches at their place, colours that mean something."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers

pytest.importorskip("PIL")

from PIL import Image

from hardware_specs.errors import InvalidInputError, OutputError
from token_reduction import get_method, reduce_tokens
from token_reduction.pictures.overlay import caption, draw_clip, draw_overlay, save_overlay
from token_reduction.pictures.panels import build_panels, even_panels
from token_reduction.pictures.viewport import find_viewports, pixel_crops


def processor_class(name):
    """The class that works on PIL pictures, so that no other image library is needed."""
    return getattr(transformers, name + "Pil", None) or getattr(transformers, name)


def clip_processor(size=168, **settings):
    return processor_class("CLIPImageProcessor")(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **settings
    )


def viewports(processor, width, height):
    return find_viewports(lambda image: pixel_crops(processor, image), width, height)


def near(view, left, top, right, bottom, slack=2.0):
    actual = np.array([view.left, view.top, view.right, view.bottom])
    assert np.abs(actual - [left, top, right, bottom]).max() <= slack, actual


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(300, 300, (0, 0, 300, 300)), (600, 300, (150, 0, 450, 300)), (200, 500, (0, 150, 200, 350))],
)
def test_clip_crops_the_middle(width, height, expected):
    (view,) = viewports(clip_processor(), width, height)
    near(view, *expected)


def test_a_processor_that_pads_sees_beyond_the_picture():
    cls = processor_class("LlavaImageProcessor")
    processor = cls(
        do_pad=True, size={"shortest_edge": 168}, crop_size={"height": 168, "width": 168}
    )
    (view,) = viewports(processor, 400, 200)
    near(view, 0, -100, 400, 300)


def test_tiles_lie_where_they_were_cut():
    """A wide picture of 400 x 200 on a canvas of 2 x 1 tiles fills it; the overview squeezes it."""
    cls = processor_class("LlavaNextImageProcessor")
    processor = cls(
        size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84},
        image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]],
    )  # fmt: skip
    overview, left, right = viewports(processor, 400, 200)
    near(overview, 0, 0, 400, 200, slack=3)
    near(left, 0, 0, 200, 200, slack=3)
    near(right, 200, 0, 400, 200, slack=3)


def photograph(width=360, height=300):
    """Bright everywhere and never grey, so that dimming shows."""
    x, y = np.meshgrid(np.linspace(90, 250, width), np.linspace(90, 250, height))
    return Image.fromarray(np.stack((x, y, 320 - x), axis=-1).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def seen(llava):
    """Picture, processor, and a function from a method to the record of running it."""
    processor, image = clip_processor(), photograph()
    pixels = torch.from_numpy(pixel_crops(processor, image))
    ids = torch.cat((torch.tensor([[5, 6]]), torch.full((1, 576), 118), torch.tensor([[7, 8]])), 1)

    def run(name, **settings):
        with (
            torch.no_grad(),
            reduce_tokens(llava, get_method(name, **settings), trace=True) as record,
        ):
            llava(input_ids=ids, pixel_values=pixels)
        return record

    return image, processor, run


def distances(picture, panel, image):
    """Mean colour distance between each cell as drawn and as photographed, by its centre."""
    zoom = 640 / max(image.size)
    size = (round(image.width * zoom), round(image.height * zoom))
    drawn = np.asarray(picture, dtype=float)[68:, 16:][: size[1], : size[0]]
    gap = np.abs(drawn - np.asarray(image.resize(size), dtype=float)).mean(axis=-1)
    centres = (panel.boxes[:, :2] + panel.boxes[:, 2:]) / 2 * zoom
    return np.array(
        [gap[int(y) - 2 : int(y) + 2, int(x) - 2 : int(x) + 2].mean() for x, y in centres]
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("divprune", {"keep": 60}), ("fastv", {"keep": 60}), ("spatial", {}),
        ("visionzip", {"keep": 60}), ("fastervlm", {"keep": 60}), ("vispruner", {"keep": 60}),
        ("cdpruner", {"keep": 60}), ("hired", {"keep": 60}), ("dart", {"text_pivots": 2}),
    ],
)  # fmt: skip
def test_kept_patches_are_crisp_and_the_others_dimmed(name, settings, seen, llava):
    image, processor, run = seen
    record = run(name, **settings)
    picture = draw_overlay(image, llava, record, processor)
    (panel,) = build_panels(llava, record, viewports(processor, *image.size))
    kept = set(record.kept_indices[0].tolist())
    assert panel.kept.nonzero()[0].tolist() == sorted(kept)
    # 300 x 300 in the middle of 360 x 300: the patch in row 1, column 2 begins at 55, 12.5.
    np.testing.assert_allclose(panel.boxes[24 + 2], [55, 12.5, 67.5, 25], atol=2)
    gaps = distances(picture, panel, image)
    assert gaps[panel.kept].max() < 12
    assert gaps[~panel.kept].min() > 40


def test_pruned_patches_carry_the_weight_they_are_merged_with(seen, llava):
    image, processor, run = seen
    record = run("prumerge", keep=40)
    (panel,) = build_panels(llava, record, viewports(processor, *image.size))
    weights = record.merge_weights[0][:40].sum(0)
    dropped = ~panel.kept & (weights.numpy() > 0)
    np.testing.assert_allclose(panel.heat[dropped], weights.numpy()[dropped], rtol=1e-5)
    assert np.isnan(panel.heat[~dropped]).all()
    assert caption(record) == ["prumerge (keep=40)", "41 of 576 visual tokens left (7.1 %)"]


@pytest.mark.parametrize("name", ["tome", "crossget", "m3"])
def test_merged_patches_share_a_group(name, seen, llava):
    image, processor, run = seen
    record = run(name)
    (panel,) = build_panels(llava, record, viewports(processor, *image.size))
    _, after = record.visual_tokens
    assert len(np.unique(panel.group)) == after - (name == "crossget")
    picture = draw_overlay(image, llava, record, processor)
    if name == "m3":
        # 6 x 6 squares of one token each: two neighbours inside one have no line between them.
        assert panel.group[0] == panel.group[3]
        assert panel.group[0] != panel.group[4]
    assert picture.size[0] >= 580


def test_fitprune_shows_the_layer_before_which_each_patch_went(seen, llava):
    image, processor, run = seen
    record = run("fitprune")
    (panel,) = build_panels(llava, record, viewports(processor, *image.size))
    layers, counts = np.unique(panel.heat[~panel.kept], return_counts=True)
    assert layers.tolist() == [1, 2, 3, 4]
    assert counts.tolist() == [a - b for a, b in pairwise(record.sequence_lengths)]


@pytest.mark.parametrize("name", ["vscan(shallow=1,cut=2)", "holov(chunks=4)/fastv(layer=2)"])
def test_a_second_stage_is_drawn_on_what_the_first_left(name, seen, llava):
    image, processor, run = seen
    record = run(name)
    (panel,) = build_panels(llava, record, viewports(processor, *image.size))
    first, last = record.stages
    kept = first.kept_order[last.kept_indices[0].numpy()]
    assert set(panel.kept.nonzero()[0]) == set(kept)
    assert len(kept) == record.visual_tokens[1]
    # What went inside the language model has the layer; what never came there has none.
    assert (~np.isnan(panel.heat)).sum() == first.visual_tokens[1] - len(kept)
    assert set(panel.heat[~np.isnan(panel.heat)]) == {2.0}
    assert draw_overlay(image, llava, record, processor).size[0] > 600


def test_a_clip_is_drawn_frame_by_frame(models, cases):
    model, case = models["llava-onevision"], cases["llava-onevision:video"]
    with torch.no_grad(), reduce_tokens(model, get_method("evs", keep=0.5)) as record:
        model(**case.inputs)
    count = case.inputs["pixel_values_videos"].shape[1]
    side = round(((case.visual - 1) / count) ** 0.5)
    panels = even_panels(record, (120, 90), (side, side), count)
    kept = record.kept_indices[0].numpy()
    drawn = np.concatenate(
        [panel.kept.nonzero()[0] + k * side**2 for k, panel in enumerate(panels)]
    )
    assert drawn.tolist() == sorted(kept[kept < count * side**2].tolist())
    assert panels[0].title == "frame 1"
    np.testing.assert_allclose(panels[1].boxes[-1, 2:], (120, 90))
    frames = [photograph(120, 90)] * count
    assert draw_clip(frames, record, (side, side)).size[0] > 580
    with pytest.raises(InvalidInputError, match="give the run's frames and its grid"):
        draw_clip([*frames, frames[0]], record, (side, side))


def test_tiles_get_a_panel_of_their_own(models):
    model = models["llava-next"]
    cls = processor_class("LlavaNextImageProcessor")
    processor = cls(
        size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84},
        image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]],
    )  # fmt: skip
    image = photograph(300, 260)
    given = processor(images=image, return_tensors="pt")
    with torch.no_grad():
        found = model.model.get_image_features(**given, return_dict=True).pooler_output
    ids = torch.cat(
        (torch.tensor([[5]]), torch.full((1, len(found[0])), 118), torch.tensor([[7]])), 1
    )
    for name, settings in (("divprune", {"keep": 50}), ("prumerge", {"keep": 9}), ("fastv", {})):
        with torch.no_grad(), reduce_tokens(model, get_method(name, **settings)) as record:
            model(input_ids=ids, **given)
        views = viewports(processor, *image.size)
        whole, tiles = build_panels(model, record, views)
        assert (whole.title, tiles.title) == ("whole image", "tiles")
        assert len(whole.kept) == 144
        # Boxes tile the picture: the first patch of the overview begins at its corner.
        np.testing.assert_allclose(whole.boxes[0, :2], [0, 0], atol=3)
        np.testing.assert_allclose(whole.boxes[-1, 2:], [300, 260], atol=3)
        kept = int(whole.kept.sum() + tiles.kept.sum())
        if name == "divprune":
            # Newline tokens are kept too, and have no place.
            assert kept <= 50
        if name == "prumerge":
            assert kept == 9 * 5
        assert draw_overlay(image, model, record, processor).size[0] > 1000


def test_what_an_overlay_cannot_show(seen, llava, models, cases, tmp_path):
    image, processor, _ = seen
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, "tome") as record:
        llava(**case.inputs)
    with pytest.raises(InvalidInputError, match="trace=True"):
        draw_overlay(image, llava, record, processor)
    with torch.no_grad(), reduce_tokens(llava, "downsample") as record:
        llava(**case.inputs)
    with pytest.raises(InvalidInputError, match="makes the whole picture smaller"):
        draw_overlay(image, llava, record, processor)
    video = cases["video-llava:video"]
    with torch.no_grad(), reduce_tokens(models["video-llava"], "divprune") as record:
        models["video-llava"](**video.inputs)
    with pytest.raises(InvalidInputError, match="one image"):
        draw_overlay(image, models["video-llava"], record, processor)
    with torch.no_grad(), reduce_tokens(llava, "divprune") as record:
        llava(**case.inputs)
    with pytest.raises(OutputError, match="cannot write"):
        save_overlay(tmp_path / "none" / "out.png", image, llava, record, processor)
    with pytest.raises(InvalidInputError, match="does not end as a picture"):
        save_overlay(tmp_path / "out.nosuch", image, llava, record, processor)
