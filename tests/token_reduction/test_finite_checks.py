"""NaN and infinity: refused at once, later in one go, or not looked for, as the caller chooses."""

from __future__ import annotations

import pytest
import torch

from hardware_specs.errors import InvalidInputError
from token_reduction.ats import ats
from token_reduction.crossget import crossget
from token_reduction.divprune import divprune
from token_reduction.evit import evit
from token_reduction.fastv import fastv
from token_reduction.fitprune import fitprune
from token_reduction.m3 import m3
from token_reduction.prumerge import prumerge
from token_reduction.sampling import sequential, spatial
from token_reduction.tokens import checks
from token_reduction.tokens.checks import finite_checks, raise_deferred, require_finite
from token_reduction.tome import tome
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
    square = clean(1, 2, N + 1, N + 1)
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
