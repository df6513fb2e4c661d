"""NaN and infinity: refused at once, later in one go, or not looked for, as the caller chooses."""

from __future__ import annotations

import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.ats import ats
from token_reduction.cdpruner import cdpruner, split_cdpruner
from token_reduction.crossget import crossget
from token_reduction.dart import dart, dart_of_embeddings
from token_reduction.divprune import divprune
from token_reduction.dycoke import dycoke, entries_to_read
from token_reduction.evit import evit
from token_reduction.evs import evs
from token_reduction.fastervlm import fastervlm
from token_reduction.fastv import fastv
from token_reduction.fastvid import fastvid
from token_reduction.fitprune import fitprune
from token_reduction.hiprune import hiprune
from token_reduction.hired import hired
from token_reduction.holitom import holitom, merge_in_turn
from token_reduction.holov import holov
from token_reduction.m3 import m3
from token_reduction.prumerge import prumerge
from token_reduction.pyramiddrop import pyramiddrop
from token_reduction.sampling import random, sequential, spatial
from token_reduction.sparsevlm import cluster_and_merge, sparsevlm, text_raters
from token_reduction.tokens import checks
from token_reduction.tokens.checks import finite_checks, raise_deferred, require_finite
from token_reduction.tome import tome
from token_reduction.v2drop import v2drop
from token_reduction.vidcom2 import vidcom2
from token_reduction.visionzip import visionzip, zip_received
from token_reduction.vispruner import vispruner
from token_reduction.vscan import vscan
from token_reduction.vtw import withdrawal_divergence

N = 64


def _calls(poison: float):
    """Every function, with the value put somewhere into each input that decides anything."""
    generator = torch.Generator().manual_seed(3)

    def clean(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def bad(*shape: int) -> torch.Tensor:
        values = clean(*shape)
        values.view(-1)[values.numel() // 2] = poison
        return values

    x, qk = clean(1, N, 8), clean(1, N + 1, 8)
    square, row = clean(1, 2, N + 1, N + 1), clean(1, 2, N)
    return {
        "prumerge features": lambda: prumerge(bad(1, N, 8), qk, qk),
        "prumerge keys": lambda: prumerge(x, qk, bad(1, N + 1, 8)),
        "prumerge fixed": lambda: prumerge(x, qk, bad(1, N + 1, 8), keep=4),
        "prumerge+": lambda: prumerge(bad(1, N, 8), qk, qk, keep=4, spatial=True),
        "divprune": lambda: divprune(bad(1, N, 8), 8),
        "fastv": lambda: fastv(bad(1, 2, N), 8, start=0, image_tokens=N),
        "fitprune": lambda: fitprune(bad(1, 2, N, N), 8, start=0, image_tokens=N - 4),
        "vtw": lambda: withdrawal_divergence(bad(1, N), x[..., 0]),
        "tome": lambda: tome(clean(1, N, 8), bad(1, N, 8), 4),
        "evit": lambda: evit(clean(1, N + 1, 8), bad(1, 2, N + 1), 8),
        "ats": lambda: ats(clean(1, N + 1, 8), bad(1, 2, N + 1), clean(1, 2, N + 1, 4), 8),
        "ats values": lambda: ats(clean(1, N + 1, 8), clean(1, 2, N + 1), bad(1, 2, N + 1, 4), 8),
        "crossget": lambda: crossget(clean(1, N + 1, 8), bad(1, N + 1, 8), square.mean(dim=1), 4),
        "crossget attention": lambda: crossget(clean(1, N + 1, 8), qk, bad(1, N + 1, N + 1), 4),
        "sequential": lambda: sequential(bad(1, N, 8), 4),
        "spatial": lambda: spatial(bad(1, N, 8), 4),
        "m3": lambda: m3(bad(1, N, 8), 4),
        "random": lambda: random(bad(1, N, 8), 4),
        "fastervlm": lambda: fastervlm(x, bad(1, 2, N), 8),
        "vispruner": lambda: vispruner(x, bad(1, 2, N), 8),
        "vispruner features": lambda: vispruner(x, row, 8, features=bad(1, N, 4)),
        "visionzip": lambda: visionzip(qk, bad(1, 3, N + 1), qk, dominant=4, contextual=2),
        "visionzip keys": lambda: visionzip(
            qk, clean(1, 2, N + 1), bad(1, N + 1, 8), dominant=4, contextual=2
        ),
        "visionzip merged": lambda: zip_received(x[0], bad(N), x[0], dominant=4, contextual=2),
        "cdpruner": lambda: cdpruner(bad(1, N, 8), x, x[0, :3], 8),
        "cdpruner images": lambda: cdpruner(x, bad(1, N, 8), x[0, :3], 8),
        "cdpruner question": lambda: cdpruner(x, x, bad(3, 8), 8),
        "cdpruner in halves": lambda: split_cdpruner(bad(N, 8), x[0, :3], 8),
        "sparsevlm": lambda: text_raters(bad(1, N, 8), x),
        "sparsevlm rows": lambda: sparsevlm(
            bad(1, 2, 5, N), raters=torch.ones(1, 5).bool(), keep=8, start=0, image_tokens=N
        ),
        "sparsevlm clusters": lambda: cluster_and_merge(bad(1, N, 8), 4),
        "pyramiddrop": lambda: pyramiddrop(
            clean(1, 2, 4), bad(1, 2, N, 4), start=0, image_tokens=N
        ),
        "dart": lambda: dart(bad(2, N + 9, 4), clean(N + 9, 8), 16, start=2, image_tokens=N),
        "dart states": lambda: dart(clean(2, N + 9, 4), bad(N + 9, 8), 16, start=2, image_tokens=N),
        "dart embeddings": lambda: dart_of_embeddings(bad(N + 9, 8), 16, spans=[(2, N)]),
        "hired": lambda: hired(bad(5, 2, N), clean(5, 2, N), grid=(2, 2)),
        "hired late": lambda: hired(clean(5, 2, N), bad(5, 2, N), grid=(2, 2)),
        "holov": lambda: holov(bad(1, N, 8), row, 8),
        "holov attention": lambda: holov(x, bad(1, 2, N), 8),
        "hiprune": lambda: hiprune(x, bad(1, N), clean(1, N), 8, side=8),
        "hiprune deep": lambda: hiprune(x, clean(1, N), bad(1, N), 8, side=8),
        "vscan": lambda: vscan(bad(1, N, 8), row, row, 9, side=8),
        "vscan attention": lambda: vscan(x, row, bad(1, 2, N), 9, side=8),
        "v2drop": lambda: v2drop(bad(1, N, 8), x, 0.5),
        "evs": lambda: evs(bad(3, 4, 8)),
        "vidcom2": lambda: vidcom2(bad(3, 4, 8)),
        "dycoke": lambda: dycoke(bad(3, 4, 8), 2),
        "dycoke decoding": lambda: entries_to_read(bad(1, 2, N)),
        "fastvid": lambda: fastvid(bad(3, 9, 8), clean(3, 4), clean(3, 9), 0.5),
        "fastvid features": lambda: fastvid(clean(3, 9, 8), bad(3, 4), clean(3, 9), 0.5),
        "holitom": lambda: holitom(bad(3, 9, 8), clean(3, 9)),
        "holitom merging": lambda: merge_in_turn(bad(1, N, 8), row),
    }


@pytest.mark.parametrize("name", _calls(0.0))
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_every_function_refuses_nan_and_infinity(name, poison) -> None:
    with pytest.raises(InvalidInputError, match="NaN or infinity"):
        _calls(poison)[name]()


@pytest.mark.parametrize("name", _calls(0.0))
def test_and_takes_the_same_input_without(name) -> None:
    _calls(0.5)[name]()


def _bad() -> torch.Tensor:
    return torch.full((2, 40, 4), float("nan"))


def test_deferred_checks_raise_once_on_leaving() -> None:
    block = finite_checks("deferred")
    block.__enter__()
    out = divprune(_bad(), 5)
    divprune(_bad(), 5)
    assert out.kept_indices.shape == (2, 5)
    assert len(checks._deferred) == 1
    with pytest.raises(InvalidInputError, match="divprune's tokens"):
        block.__exit__(None, None, None)
    raise_deferred()


def test_deferred_flags_are_forgotten_when_another_error_comes_first() -> None:
    def fails() -> None:
        with finite_checks("deferred"):
            divprune(_bad(), 5)
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        fails()
    raise_deferred()


def test_one_bad_call_among_good_ones_is_found() -> None:
    def run() -> None:
        good = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))
        with finite_checks("deferred"):
            for tokens in (good, good * float("nan"), good):
                divprune(tokens, 5)

    with pytest.raises(InvalidInputError):
        run()


def test_off_never_looks() -> None:
    with finite_checks("off"):
        divprune(torch.full((40, 4), float("nan")), 5)
        raise_deferred()


def test_meta_tensors_are_not_looked_at() -> None:
    assert divprune(torch.empty(2, 40, 4, device="meta"), 5).kept_indices.shape == (2, 5)


def test_an_adaptive_count_raises_even_when_deferred() -> None:
    bad = torch.full((1, N + 1, 8), float("nan"))
    with pytest.raises(InvalidInputError, match="queries"), finite_checks("deferred"):
        prumerge(torch.zeros(1, N, 8), bad, bad)


def test_half_precision_sums_do_not_overflow() -> None:
    require_finite("test", values=torch.full((4096,), 6e4, dtype=torch.float16))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="deferred"), finite_checks("never"):  # type: ignore[arg-type]
        pass
