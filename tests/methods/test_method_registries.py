"""The cost side and `token_reduction` speak of the same methods, places and defaults."""

import json
from importlib.resources import files
from itertools import pairwise

import pytest

from costmodel.methods import list_methods, method_info
from costmodel.methods.fitprune import shipped_schemes, tokens_by_layer
from token_reduction import list_methods, method_info


def test_same_names() -> None:
    assert set(list_methods()) == set(list_methods())


@pytest.mark.parametrize("name", list_methods())
def test_same_place_and_layer(name) -> None:
    cost, info = method_info(name), method_info(name)
    assert cost.name == info.name == name
    assert cost.place == info.place
    assert cost.takes_layer == info.takes_layer
    assert cost.default_layer == info.default_layer
    if name == "vtw":
        from costmodel.methods.vtw import PUBLISHED_LAYERS
        from token_reduction.vtw import published_layer

        assert {depth: published_layer(depth) for depth in PUBLISHED_LAYERS} == PUBLISHED_LAYERS


@pytest.mark.parametrize(
    ("name", "module", "value"),
    [
        ("divprune", "divprune", "RATIO"),
        ("fastv", "fastv", "RATIO"),
        ("fitprune", "fitprune", "SHARE"),
        ("evit", "evit", "RATIO"),
        ("sequential", "sampling", "COUNT"),
        ("spatial", "sampling", "COUNT"),
        ("m3", "m3", "COUNT"),
        ("visionzip", "visionzip", "COUNT"),
        ("fastervlm", "fastervlm", "RATIO"),
        ("vispruner", "vispruner", "COUNT"),
        ("cdpruner", "cdpruner", "COUNT"),
        ("hired", "hired", "RATIO"),
        ("pyramiddrop", "pyramiddrop", "RATIO"),
        ("dart", "dart", "COUNT"),
        ("sparsevlm", "sparsevlm", "COUNT"),
    ],
)
def test_same_default(name, module, value) -> None:
    from importlib import import_module

    assert method_info(name).default_keep == getattr(
        import_module(f"costmodel.methods.{module}"), value
    )


def test_same_merges_by_default() -> None:
    from costmodel.methods.tome import PAIRS

    for name in ("tome", "crossget"):
        assert method_info(name).options["r"].default == PAIRS


def test_same_layers_and_pivots_in_the_language_model() -> None:
    from costmodel.methods.dart import IMAGE_PIVOTS, TEXT_PIVOTS
    from costmodel.methods.sparsevlm import KEEP_LISTS, LAYERS

    assert method_info("sparsevlm").options["layers"].default == LAYERS
    assert method_info("sparsevlm").keep_choices == tuple(KEEP_LISTS)
    pivots = {
        name: method_info("dart").options[name].default for name in ("image_pivots", "text_pivots")
    }
    assert pivots == {"image_pivots": IMAGE_PIVOTS, "text_pivots": TEXT_PIVOTS}


def test_same_layers_of_the_tower() -> None:
    from costmodel.methods.ats import LAYERS as ATS_LAYERS
    from costmodel.methods.evit import LAYERS as EVIT_LAYERS

    assert method_info("evit").options["layers"].default == EVIT_LAYERS
    assert method_info("ats").options["layers"].default == ATS_LAYERS


def test_same_fitprune_schemes() -> None:
    path = files("token_reduction").joinpath("data/fitprune_llava15_7b.json")
    theirs = json.loads(path.read_text("utf-8"))["schemes"]
    assert {int(key): tuple(value) for key, value in theirs.items()} == shipped_schemes()


@pytest.mark.parametrize(("layers", "tokens"), [(32, 576), (40, 576), (28, 729), (4, 16), (32, 37)])
def test_same_stretching_of_a_scheme(layers, tokens) -> None:
    pytest.importorskip("torch")
    from token_reduction.fitprune import scheme_for

    entering = tokens_by_layer(shipped_schemes()[60], layers, tokens)
    ours = tuple(a - b for a, b in pairwise(entering))
    assert ours == scheme_for(0.4, num_layers=layers, image_tokens=tokens)


@pytest.mark.parametrize(
    ("keep", "patches", "layers"), [(144, 576, 23), (0.1, 576, 23), (3, 16, 4)]
)
def test_same_spread_of_merges(keep, patches, layers) -> None:
    pytest.importorskip("torch")
    from costmodel.methods.tome import merges_per_layer
    from token_reduction.tome import merges_for_keep

    theirs = merges_for_keep(keep, patches=patches, num_layers=layers)
    assert merges_per_layer("tome", keep, patches, layers) == theirs


def test_same_grid_of_prumerge_plus() -> None:
    pytest.importorskip("torch")
    from costmodel.methods.prumerge import grid_tokens
    from token_reduction.prumerge import spatial_supplement

    for chosen in (1, 16, 32, 40, 64, 72, 100, 192):
        grid = len(spatial_supplement(576, chosen / 576))
        assert grid_tokens(576, chosen) == round(grid * (1 - chosen / 576))
