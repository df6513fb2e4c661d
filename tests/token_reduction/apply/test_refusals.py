"""What cannot work says why, before it does anything wrong."""

from __future__ import annotations

import pytest
import torch
import transformers

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction import get_method, reduce_tokens
from token_reduction.caches import cache_keyword, cache_of


def run(model, inputs, method):
    with torch.no_grad(), reduce_tokens(model, method):
        return model(**inputs)


@pytest.mark.parametrize(
    "name",
    ["prumerge", "prumerge+", "evit", "ats", "crossget", "visionzip", "fastervlm", "vispruner", "hired",
     "cdpruner"],
)  # fmt: skip
def test_siglip_has_no_class_token(name, models):
    with (
        pytest.raises(UnsupportedError, match="SiglipVisionModel has no class token"),
        reduce_tokens(models["llava-onevision"], name),
    ):
        pass


@pytest.mark.parametrize("name", ["sequential", "spatial", "m3", "tome"])
def test_onevision_pools_video_frames_on_their_grid(name, models, cases):
    model, case = models["llava-onevision"], cases["llava-onevision:video"]
    with pytest.raises(UnsupportedError, match="pools every video frame"):
        run(model, case.inputs, get_method(name))


@pytest.mark.parametrize("name", ["prumerge", "tome", "evit"])
def test_next_videos_frames_are_pooled_before_the_projector(name, models, cases):
    model, case = models["llava-next-video"], cases["llava-next-video:video"]
    settings = {"layers": (1, 2)} if name == "evit" else {}
    with pytest.raises(UnsupportedError, match="pools"):
        run(model, case.inputs, get_method(name, **settings))
    # Their images are those of LLaVA-NeXT.
    run(model, cases["llava-next-video"].inputs, get_method(name, **settings))


def test_another_model_is_named_with_those_that_work():
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=32,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with (
        pytest.raises(UnsupportedError, match="LlamaForCausalLM; it works on LlavaForCond"),
        reduce_tokens(model, "divprune"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fastv", {"layer": 4}, "layers 0 to 3"),
        ("vtw", {}, "vtw at layer 16"),
        ("evit", {}, r"vision layers \[3, 6, 9\], but this tower has layers 0 to 3"),
        ("ats", {"layers": (0, 4)}, "layers 0 to 3"),
        ("tome", {"keep": 10}, "reach 72; give a larger keep"),
        ("tome", {"r": [1, 2, 3, 4, 5]}, "at most 4 numbers"),
        ("pyramiddrop", {"layers": (2, 4)}, "last that can be is 3"),
        ("sparsevlm", {"keep": 192, "layers": (2, 3)}, "can be is 2"),
        ("sparsevlm", {"keep": 192, "layers": (0, 1)}, "one count per"),
        ("dart", {"keep": 40, "layer": 0}, "at least 1"),
        ("dart", {"keep": 40, "layer": 9}, "layers 0 to 3"),
    ],
)
def test_layers_and_counts_the_model_does_not_have(name, settings, message, llava):
    with (
        pytest.raises(InvalidInputError, match=message),
        reduce_tokens(llava, get_method(name, **settings)),
    ):
        pass


@pytest.mark.parametrize("name", ["divprune", "sequential", "fastv"])
def test_more_tokens_than_there_are(name, llava, cases):
    with pytest.raises(InvalidInputError, match="577"):
        run(llava, cases["llava"].inputs, get_method(name, keep=577))


def test_a_scheme_that_does_not_fit(llava, cases):
    method = get_method("fitprune", scheme=(1, 2, 3))
    with pytest.raises(InvalidInputError, match=r"in 3 layers.*4 layers"):
        run(llava, cases["llava"].inputs, method)


@pytest.mark.parametrize("name", ["divprune", "fastv"])
def test_fixed_length_caches(name, llava, cases):
    with pytest.raises(UnsupportedError, match="fixed length"), reduce_tokens(llava, name):
        llava.generate(**cases["llava"].inputs, max_new_tokens=2, cache_implementation="static")


@pytest.mark.parametrize("name", ["divprune", "fastv"])
def test_embeddings_do_not_say_what_is_visual(name, llava, cases):
    case = cases["llava"]
    embeddings = llava.get_input_embeddings()(case.inputs["input_ids"].clamp_max(117))
    with pytest.raises(InvalidInputError, match="input_ids"):
        run(llava, {"inputs_embeds": embeddings}, get_method(name))
    pixels = {"inputs_embeds": embeddings, "pixel_values": case.inputs["pixel_values"]}
    with pytest.raises(InvalidInputError, match="input_ids"):
        run(llava, pixels, get_method(name))


@pytest.mark.parametrize(("tokens", "held"), [(575, 575), (0, 0), (577, 577)])
def test_placeholders_that_do_not_match_the_image(tokens, held, llava, cases):
    pixels = cases["llava"].inputs["pixel_values"]
    ids = torch.cat((torch.tensor([[5, 6]]), torch.full((1, tokens), 118), torch.tensor([[7]])), 1)
    with pytest.raises(InvalidInputError, match=f"holds {held} image placeholders"):
        run(llava, {"input_ids": ids, "pixel_values": pixels}, get_method("divprune"))


def test_an_image_over_two_rows(llava, cases):
    pixels = cases["llava"].inputs["pixel_values"]
    ids = torch.full((2, 288), 118)
    with pytest.raises(InvalidInputError, match="spread over 2 sequences"):
        run(llava, {"input_ids": ids, "pixel_values": pixels}, get_method("divprune"))


@pytest.mark.parametrize("name", ["divprune", "fastv"])
def test_a_four_dimensional_mask(name, llava, cases):
    inputs = {**cases["llava"].inputs, "attention_mask": torch.ones(1, 1, 585, 585)}
    with pytest.raises(UnsupportedError, match=r"mask \[batch, tokens\]"):
        run(llava, inputs, get_method(name))


def test_a_mask_of_another_length(llava, cases):
    inputs = {**cases["llava"].inputs, "attention_mask": torch.ones(1, 500)}
    with pytest.raises(InvalidInputError, match=r"mask has shape \(1, 500\)"):
        run(llava, inputs, get_method("divprune"))


def test_labels(llava, cases):
    inputs = {**cases["llava"].inputs, "labels": cases["llava"].inputs["input_ids"]}
    with pytest.raises(UnsupportedError, match="shorter than the labels"):
        run(llava, inputs, get_method("divprune"))


@pytest.mark.parametrize("method", ["fastv", "holitom(cut=2)", "dycoke(variant=both,at=2)"])
def test_other_attention_implementations_inside_the_language_model(make_model, method):
    model = make_model("llava")
    model.config.text_config._attn_implementation = "flash_attention_2"
    with (
        pytest.raises(UnsupportedError, match="sdpa and eager, not 'flash_attention_2'"),
        reduce_tokens(model, method),
    ):
        pass


def test_a_second_image_inside_the_language_model(llava, cases):
    case = cases["llava"]
    with torch.no_grad(), reduce_tokens(llava, "fastv"):
        cache = cache_of(llava(**case.inputs, use_cache=True))
        with pytest.raises(UnsupportedError, match="holds 585 tokens already"):
            llava(**case.inputs, **{cache_keyword(): cache})


@pytest.mark.parametrize("name", ["fitprune", "fastv"])
def test_text_between_the_images_where_rows_after_it_count(name, llava, cases):
    case = cases["llava"]
    inputs = {
        "input_ids": torch.cat((case.inputs["input_ids"],) * 2, dim=1),
        "pixel_values": torch.cat((case.inputs["pixel_values"],) * 2),
    }
    settings = {"variant": "paper"} if name == "fastv" else {}
    with pytest.raises(UnsupportedError, match="text between its visual tokens"):
        run(llava, inputs, get_method(name, **settings))


@pytest.mark.parametrize("method", ["fitprune", "sparsevlm(layers=[0,1], counts=[60,20])"])
def test_nothing_behind_the_image_to_weigh_it(method, llava, cases):
    case = cases["llava"]
    ids = case.inputs["input_ids"][:, : case.start + case.visual]
    with pytest.raises(InvalidInputError, match="put the question behind the image"):
        run(llava, {**case.inputs, "input_ids": ids}, method)


def test_several_feature_layers_of_different_lengths(make_model):
    model = make_model("llava")
    model.config.vision_feature_layer = [-2, -3]
    with (
        pytest.raises(UnsupportedError, match=r"concatenates those of layers -2, -3"),
        reduce_tokens(model, "tome"),
    ):
        pass


def test_nan_is_refused_and_not_picked(llava, cases):
    inputs = {**cases["llava"].inputs}
    inputs["pixel_values"] = inputs["pixel_values"].clone()
    inputs["pixel_values"][0, 0, 5, 5] = torch.nan
    for name in ("divprune", "prumerge", "fastv"):
        with pytest.raises(InvalidInputError, match="NaN"):
            run(llava, inputs, get_method(name))


def test_encoded_images_cannot_be_reduced_while_encoding(llava, cases):
    """Newer versions of transformers take images that were encoded before."""
    import inspect

    if "mm_encoder_outputs" not in inspect.signature(type(llava.model).forward).parameters:
        pytest.skip("this version of transformers takes no encoded images")
    case = cases["llava"]
    with torch.no_grad():
        found = llava.model.get_image_features(case.inputs["pixel_values"], return_dict=True)
        inputs = {
            "input_ids": case.inputs["input_ids"], "mm_encoder_outputs": {"image": found}
        }  # fmt: skip
        with pytest.raises(InvalidInputError, match="not mm_encoder_outputs"):
            run(llava, inputs, get_method("divprune"))
        # Inside the language model it makes no difference who encoded them.
        with reduce_tokens(llava, "fastv"):
            encoded = llava(**inputs).logits
            inputs["mm_encoder_outputs"] = {"image": found}
            assert torch.equal(encoded, llava(**case.inputs).logits)
