"""What a method refuses, and that it says why."""

import numpy as np
import pytest

from costmodel import estimate, list_models, sweep
from costmodel.methods import get_method, list_methods, method_info
from hardware_specs.errors import InvalidInputError, UnsupportedError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
CLASS_TOKEN = (
    *("prumerge", "prumerge+", "ats", "evit", "crossget"),
    *("visionzip", "fastervlm", "vispruner", "hired", "holov", "hiprune", "vscan"),
)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "divprune", "keep": 577}, "keep=577 asks for more tokens than the 576"),
        ({"method": "fastv", "keep": 600, "visual_tokens": 500}, "than the 500 there are"),
        ({"method": "prumerge", "keep": 1000}, "give at most 576"),
        ({"method": "fastv", "layer": 32}, "has layers 0 to 31"),
        ({"method": "fastv", "layer": -1}, "layer must be a whole number from 0"),
        ({"method": "vtw", "layer": 99}, "has layers 0 to 31"),
        ({"method": "divprune", "layer": 32}, "has layers 0 to 31"),
        ({"method": "prumerge", "layer": 2}, "prumerge takes no layer"),
        ({"method": "tome", "layer": 2}, "inside the vision tower"),
        ({"method": "fitprune", "layer": 2}, "in every language-model layer"),
        ({"method": "vtw", "keep": 64}, "takes no keep"),
        ({"method": "fitprune", "keep": 0.42}, "fitprune is defined for keep in 0.9, 0.8, 0.7"),
        ({"method": "fitprune", "keep": 64}, "keep is a ratio .* FLOPs that is left; given 64"),
        ({"method": "dycoke", "keep": 5}, "keep is a ratio"),
        ({"method": "divprune(keep=144)/fastv", "keep": 64}, "takes no keep .* in brackets"),
        ({"method": "sparsevlm(counts=[9,8,7])", "keep": 100}, "defined for keep in 192"),
        ({"method": "prumerge+", "keep": 300}, "from 1 patch to a third"),
        (
            {"method": "divprune", "keep": 0},
            "an int from 1.*not the int 0; for no visual tokens take vtw",
        ),
        ({"method": "spatial", "keep": 37}, "36 and 38"),
        ({"method": "spatial(grid=4x4)", "keep": 16}, "option grid decides .* so does keep=16"),
        ({"method": "spatial(variant=strided,grid=4x4)"}, "has no grid"),
        ({"method": "tome(r=8,r=9)"}, "gives one setting twice"),
        ({"method": 'cdpruner(embeddings="a\\q")'}, "is no text in quotes"),
        ({"method": "tome(r=8)", "keep": 64}, "option r decides .* so does keep=64"),
        ({"method": "sparsevlm(counts=[9,8,7])", "keep": 192}, "option counts decides .* keep=192"),
        ({"method": "m3", "keep": 100}, "576, 144, 64, 36"),
        ({"method": "fastv", "keep": 1.5}, "keep must be"),
        ({"method": "fastv", "keep": -1}, "keep must be"),
        ({"method": "fastv", "keep": True}, "keep must be"),
        ({"method": "sparsevlm", "keep": 100}, "defined for keep in 192, 128, 96, 64; given 100"),
        ({"method": "sparsevlm", "keep": 0.5}, "defined for keep in 192"),
        ({"method": "sparsevlm", "layer": 2}, "sparsevlm takes no layer"),
        ({"method": "sparsevlm(layers=[3,0,2,0])"}, "give every layer once"),
        ({"method": "dart", "layer": 0}, "give a layer of at least 1"),
        ({"method": "dycoke(variant=both, at=40)"}, "last that can be is 31; give at="),
        ({"method": "dart", "keep": 572}, "keeps 580 tokens here, 4 pivots among them"),
        ({"method": "dart", "text_tokens": 3}, "give text_tokens of at least 4"),
        ({"method": "visionzip", "keep": 577}, "give at most 576"),
        ({"method": "vispruner", "visual_tokens": 63}, "keep=64 asks for more tokens than the 63"),
        ({"method": "pyramiddrop", "keep": 577}, "give at most 576"),
        ({"keep": 64}, "belongs to a method"),
    ],
)
def test_bad_settings(asked, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        estimate(MODEL, A100, **asked)


def test_prumerge_needs_neighbours() -> None:
    with pytest.raises(InvalidInputError, match="at least 33 patches, not 32"):
        estimate(MODEL, A100, method="prumerge", visual_tokens=32)
    assert estimate(MODEL, A100, method="prumerge", visual_tokens=33, keep=4).totals.flops > 0


def test_tower_methods_need_their_layers() -> None:
    for name in ("evit", "ats"):
        with pytest.raises(InvalidInputError, match="but this tower has layers 0 to 3"):
            estimate("llava-1.5-7b@layers=4", A100, method=name)


def test_llm_methods_need_their_layers() -> None:
    with pytest.raises(InvalidInputError, match="layers 0 to 15"):
        estimate("llava-1.5-7b@layers=16", A100, method="sparsevlm")
    assert estimate("llava-1.5-7b@layers=17", A100, method="sparsevlm").totals.flops > 0
    with pytest.raises(InvalidInputError, match="3 layers have no quarters"):
        estimate("llava-1.5-7b@layers=3", A100, method="pyramiddrop")


@pytest.mark.parametrize("name", ["evit", "pyramiddrop", "sparsevlm", "v2drop", "ats"])
def test_a_list_of_no_layers_is_refused(name) -> None:
    with pytest.raises(InvalidInputError, match="must be a list of layers"):
        get_method(name, layers=[])


def test_hired_takes_no_videos() -> None:
    with pytest.raises(UnsupportedError, match="not on videos"):
        estimate("video-llava-7b", A100, method="hired")
    assert estimate("llava-next-video-7b", A100, method="hired", image_size=(480, 640)).totals.flops


@pytest.mark.parametrize("name", list_methods())
def test_text_models_have_nothing_to_reduce(name) -> None:
    with pytest.raises(InvalidInputError, match="no vision tower"):
        estimate("llama-2-7b", A100, method=name)


@pytest.mark.parametrize("name", list_methods())
def test_towers_without_a_class_token(name) -> None:
    if name in CLASS_TOKEN:
        assert method_info(name).needs_class_token
        with pytest.raises(UnsupportedError, match=r"siglip tower .* has no class token"):
            estimate("llava-onevision-7b", A100, method=name)
    elif name == "pixelprune":
        with pytest.raises(UnsupportedError, match="takes whole crops"):
            estimate("llava-onevision-7b", A100, method=name)
    elif name == "cdpruner":
        with pytest.raises(UnsupportedError, match="it is no CLIP"):
            estimate("llava-onevision-7b", A100, method=name)
    else:
        # M3 and the samplers pool and cut SigLIP's 27 x 27 patches: 9 tokens have a grid in it.
        keep = 9 if name in ("m3", "spatial") else None
        assert estimate("llava-onevision-7b", A100, method=name, keep=keep).totals.flops > 0


def test_models_that_pool_the_grid_of_a_frame() -> None:
    video = "llava-next-video-7b"
    for name in ("prumerge", "tome", "evit", "visionzip", "fastervlm", "vispruner", "cdpruner"):
        with pytest.raises(UnsupportedError, match="pools every frame to 144"):
            estimate(video, A100, method=name)
    for name in ("prumerge", "tome"):
        estimate(video, A100, method=name, image_size=(480, 640))
    for name in ("divprune", "spatial", "fastv", "m3"):
        assert estimate(video, A100, method=name).totals.flops > 0
    for name in ("sequential", "tome", "m3"):
        with pytest.raises(UnsupportedError, match="leaves no grid of patches"):
            estimate("llava-onevision-7b", A100, method=name, frames=8)


def test_vtw_knows_layers_of_two_depths_only() -> None:
    with pytest.raises(InvalidInputError, match="give layer= from 0 to 3"):
        estimate("llava-1.5-7b@layers=4", A100, method="vtw")
    assert estimate("llava-1.5-7b@layers=4", A100, method="vtw", layer=2).totals.flops > 0


def test_fastv_of_every_model_that_has_tokens() -> None:
    for name in list_models():
        if not name.startswith("llama"):
            assert estimate(name, A100, method="fastv", keep=0.25).totals.flops > 0


def test_a_sweep_refuses_counts_some_rows_cannot_keep() -> None:
    with pytest.raises(InvalidInputError, match="keep=100 asks for more tokens than the 64"):
        sweep(MODEL, A100, visual_tokens=[576, 64], method="divprune", keep=100)
    table = sweep(MODEL, A100, visual_tokens=[576, 64], method="divprune", keep=[0.1, 0.5])
    assert np.all(table["flops"] > 0)
