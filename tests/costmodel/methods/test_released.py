"""The authors' programs as released: tokens as ever, own work counted from their steps."""

import pytest

from costmodel import estimate
from costmodel.methods import get_method, list_methods, method_info
from hardware_specs.errors import InvalidInputError, UnsupportedError

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"
RELEASED = [name for name in list_methods() if method_info(name).released is not None]


def own(line, **asked):
    cost = estimate(MODEL, A100, method=get_method(line), execution="hf-eager", **asked)
    return cost, cost.stages["reduction"], {row.name: row for row in cost.ops}


def test_which_were_counted() -> None:
    assert set(RELEASED) == {"divprune", "fastv", "cdpruner", "vispruner"}
    assert all("released" in method_info(name).variants for name in RELEASED)


@pytest.mark.parametrize("name", RELEASED)
def test_tokens_are_the_same_and_the_work_is_more(name) -> None:
    ours, less, _ = own(name)
    theirs, more, _ = own(f"{name}(variant=released)")
    assert theirs.visual_tokens_by_layer == ours.visual_tokens_by_layer
    assert theirs.stages["prefill"].flops == ours.stages["prefill"].flops
    assert more.time_s > less.time_s
    assert more.hbm_bytes >= less.hbm_bytes


def test_divprune_starts_over_at_each_pick() -> None:
    _, stage, ops = own("divprune(variant=released)")
    assert stage.flops == 2 * 2 * 576**2 * 4096
    assert ops["pick"].kernels == 56 * 6
    # The mean pick copies 28 rows of 576 distances in two bytes.
    assert ops["pick"].activation_write_bytes == 56 * 28 * 576 * 2


def test_divprune_is_released_before_the_first_layer_alone() -> None:
    with pytest.raises(InvalidInputError, match="leave layer out"):
        own("divprune(variant=released, layer=2)")


def test_fastv_writes_one_layers_scores_out() -> None:
    _, stage, ops = own("fastv(variant=released)", text_tokens=40)
    assert stage.flops == 0
    assert ops["scores_written_out"].activation_write_bytes == 7 * 32 * 616**2 * 2


def test_vispruner_writes_every_layers_scores_out() -> None:
    _, _, ops = own("vispruner(variant=released, keep=128)")
    assert ops["scores_written_out"].kernels == 24 * 4
    assert ops["places_copied"].kernels == 56 * 2  # (576 - 128) / 8 rounds


def test_cdpruner_compares_projected_tokens() -> None:
    _, _, ops = own("cdpruner(variant=released)")
    assert ops["cosine"].flops == 2 * 576**2 * 4096
    assert ops["pick"].kernels == 64 * 17


def test_a_run_is_refused() -> None:
    torch = pytest.importorskip("torch")
    from token_reduction import reduce_tokens

    with (
        pytest.raises(UnsupportedError, match="price of the authors' program"),
        reduce_tokens(torch.nn.Linear(1, 1), get_method("fastv", variant="released")),
    ):
        pass
