"""Methods in models whose bridge merges patches, and whose positions have three axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from merging_families import AXES, CONFIGS, TOKENS, tiny_inputs, tiny_model

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction import get_method, reduce_tokens


def _logits(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**given).logits[:, -1]
    return logits


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("method", ["divprune", "fastv", "vtw"])
def test_nothing_dropped_is_the_model_itself(kind: str, method: str) -> None:
    """Positions, masks and the features of deepstack follow the tokens: keeping all changes nothing."""
    model, given, n = tiny_model(kind), tiny_inputs(kind), TOKENS[kind]
    expected = _logits(model, given)
    keep = {"divprune": n, "fastv": n, "vtw": None}[method]
    layer = {"fastv": 1, "vtw": 7}.get(method)
    with reduce_tokens(model, get_method(method, keep=keep, layer=layer)) as record:
        reduced = _logits(model, given)
    if method == "vtw":  # the last layer alone sees text
        assert record.sequence_lengths[:7] == [given["input_ids"].shape[1]] * 7
    else:
        torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(_logits(model, given), expected)  # untouched behind the block


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("divprune", {"keep": 5}),
        ("fastv", {"keep": 5, "layer": 1}),
        ("fastv", {"keep": 5, "layer": 3}),
        ("pyramiddrop", {"keep": 0.5}),
        ("dart", {"keep": 4, "layer": 2, "image_pivots": 2, "text_pivots": 2}),
        ("sparsevlm", {"keep": None, "layers": (2, 4), "counts": (8, 4)}),
    ],
)
def test_generates_with_fewer_tokens(kind: str, method: str, options: dict[str, Any]) -> None:
    model, given = tiny_model(kind), tiny_inputs(kind)
    with reduce_tokens(model, get_method(method, **options)) as record:
        out = model.generate(**given, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert out.shape[1] == given["input_ids"].shape[1] + 4
    before, after = record.visual_tokens
    assert before == TOKENS[kind]
    assert after < before


@pytest.mark.parametrize("kind", CONFIGS)
def test_decoding_goes_on_where_the_prompt_ended(kind: str) -> None:
    """With every token kept, an answer is the untouched model's, word for word."""
    model, given = tiny_model(kind), tiny_inputs(kind)
    asked = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(**given, **asked)
    with reduce_tokens(model, get_method("divprune", keep=TOKENS[kind])):
        assert torch.equal(model.generate(**given, **asked), expected)


@pytest.mark.parametrize("kind", AXES)
def test_what_is_left_keeps_its_place_and_its_features(kind: str) -> None:
    """DivPrune equals the language model on rows, positions and deepstack features cut by hand."""
    model, given = tiny_model(kind), tiny_inputs(kind)
    with reduce_tokens(model, get_method("divprune", keep=5)) as record:
        reduced = _logits(model, given)
    (kept,) = record.kept_indices
    base, ids = model.model, given["input_ids"]
    with torch.no_grad():
        positions, _ = base.get_rope_index(
            ids, image_grid_thw=given["image_grid_thw"],
            mm_token_type_ids=given["mm_token_type_ids"],
        )  # fmt: skip
        output = base.get_image_features(given["pixel_values"], given["image_grid_thw"])
        marks = ids[0] == 120
        columns = torch.cat((torch.where(~marks)[0], torch.where(marks)[0][kept])).sort().values
        embeds = base.get_input_embeddings()(ids)
        embeds[0, marks] = output.pooler_output[0]
        beside = {}
        if kind.startswith("qwen3_vl"):
            beside = {
                "visual_pos_masks": marks[columns][None],
                # Up to transformers 5.17 a layer has one tensor for all images.
                "deepstack_visual_embeds": [
                    (each if isinstance(each, torch.Tensor) else each[0])[kept]
                    for each in output.deepstack_features
                ],
            }
        hidden = base.language_model(
            inputs_embeds=embeds[:, columns], position_ids=positions[:, :, columns], **beside
        ).last_hidden_state
        expected = model.lm_head(hidden[:, -1])
    torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-4)


def _clip(kind: str) -> dict[str, torch.Tensor]:
    """Three frames as images, 16 tokens each, with text between them."""
    given, frame = tiny_inputs(kind), [3, *[120] * 16]
    ids = torch.tensor([[1, *frame, *frame, *frame, 5, 6]])
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    pixels = pixels if given["pixel_values"].ndim == 4 else pixels[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


@pytest.mark.parametrize("kind", ["internvl", "smolvlm"])
def test_frames_that_come_as_images_are_a_clip(kind: str) -> None:
    """EVS equals the model on a prompt from which the dropped tokens were cut by hand."""
    from token_reduction.evs import evs

    model, given = tiny_model(kind), _clip(kind)
    with reduce_tokens(model, get_method("evs", keep=0.5), frames=3) as record:
        reduced = _logits(model, given)
    assert (record.items, record.visual_tokens) == (["video"], (48, 24))
    base, ids = model.model, given["input_ids"]
    with torch.no_grad():
        features = base.get_image_features(given["pixel_values"]).pooler_output
        tokens = torch.cat(list(features)).view(48, -1)
        kept = evs(tokens.view(3, 16, -1), 0.5).kept_indices
        places = torch.where(ids[0] == 120)[0]
        columns = torch.cat((torch.where(ids[0] != 120)[0], places[kept])).sort().values
        embeds = base.get_input_embeddings()(ids)
        embeds[0, places] = tokens
        hidden = base(inputs_embeds=embeds[:, columns]).last_hidden_state
        expected = model.lm_head(hidden[:, -1])
    torch.testing.assert_close(reduced, expected, rtol=1e-4, atol=1e-4)
    # Without frames they are three images, which stay whole.
    with reduce_tokens(model, get_method("evs", keep=0.5)) as record:
        _logits(model, given)
    assert sum(record.tokens_after) == 48
    with (
        pytest.raises(InvalidInputError, match="brings 3 images"),
        reduce_tokens(model, "evs", frames=2),
    ):
        _logits(model, given)


def test_frames_are_said_where_a_call_does_not_say_them() -> None:
    with (
        pytest.raises(InvalidInputError, match="Qwen2-VL says itself"),
        reduce_tokens(tiny_model("qwen2_vl"), "evs", frames=3),
    ):
        pass
    for frames in (0, True, 2.5):
        with (
            pytest.raises(InvalidInputError, match="whole number"),
            reduce_tokens(tiny_model("internvl"), "evs", frames=frames),  # type: ignore[arg-type]
        ):
            pass


def _two_images(counts: tuple[int, int], pixels: torch.Tensor, grids: Any) -> dict[str, Any]:
    """A batch of two prompts, the first padded in front or not at all."""
    rows = [[1, 122, *[120] * counts[0], 5, 6, 7], [122, *[120] * counts[1], 5, 6]]
    length = max(map(len, rows))
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    given = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": (ids == 120).long()}
    return given | {"pixel_values": pixels, "image_grid_thw": grids}


@pytest.mark.parametrize("kind", AXES)
def test_downsample_is_the_model_on_the_smaller_image(kind: str) -> None:
    from token_reduction.downsample import downsample_native

    model, grids = tiny_model(kind), torch.tensor([[1, 8, 12], [1, 8, 16]])
    pixels = torch.randn(96 + 128, 96, generator=torch.Generator().manual_seed(3))
    small = downsample_native(pixels, grids, 0.25, patch=4, tubelet=2, merge=2)
    whole, smaller = _two_images((24, 32), pixels, grids), _two_images((6, 8), *small)
    asked = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with reduce_tokens(model, "downsample") as record:
        reduced, answer = _logits(model, whole), model.generate(**whole, **asked)
    assert record.visual_tokens == (56, 14)
    torch.testing.assert_close(reduced, _logits(model, smaller))
    assert torch.equal(answer[:, -4:], model.generate(**smaller, **asked)[:, -4:])


def test_every_frame_between_times_loses_its_share() -> None:
    from token_reduction.downsample import downsample_native

    def prompt(each: int, pixels: torch.Tensor, grids: Any) -> dict[str, Any]:
        ids = torch.tensor([[3, *[121] * each, 4, *[121] * each, 5, 6]])
        kinds = 2 * (ids == 121).long()
        given = {"input_ids": ids, "mm_token_type_ids": kinds, "pixel_values_videos": pixels}
        return given | {"video_grid_thw": grids}

    model, grids = tiny_model("qwen3_vl"), torch.tensor([[2, 4, 8]])
    pixels = torch.randn(64, 96, generator=torch.Generator().manual_seed(4))
    small = downsample_native(pixels, grids, 0.25, patch=4, tubelet=2, merge=2)
    with reduce_tokens(model, "downsample"):
        reduced = _logits(model, prompt(8, pixels, grids))
    torch.testing.assert_close(reduced, _logits(model, prompt(2, *small)))


@pytest.mark.parametrize("kind", AXES)
def test_visionzip_behind_the_merger(kind: str) -> None:
    """Dominant tokens are what all patches look at, recomputed from the layer's own scores."""
    from costmodel.methods.visionzip import contextual_tokens

    model, given = tiny_model(kind), tiny_inputs(kind)
    with reduce_tokens(model, get_method("visionzip", keep=8)) as record:
        out = model.generate(**given, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert out.shape[1] == given["input_ids"].shape[1] + 3
    assert record.visual_tokens == (12, 8)
    (kept,) = record.kept_indices
    (scores,) = record.scores
    dominant = 8 - int(contextual_tokens(8))
    assert set(kept[:dominant].tolist()) == set(scores.topk(dominant).indices.tolist())
    # Rows of a softmax: what a patch gives away comes to 1, a mean of 4 for each token.
    torch.testing.assert_close(scores.sum(), torch.tensor(1 / 4.0))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("method", ["tome", "prumerge", "spatial", "fastervlm"])
def test_choosing_among_patches_is_refused(kind: str, method: str) -> None:
    refused = pytest.raises(UnsupportedError, match="merges patches of a grid")
    with refused, reduce_tokens(tiny_model(kind), method):
        pass
