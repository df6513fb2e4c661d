"""No function reads the device back but where its definition forces it.

A meta tensor has no values, so anything that needs one on the host (item, nonzero, tolist) raises.
What runs on meta tensors therefore queues its work on an accelerator without ever waiting for it.
"""

from __future__ import annotations

import pytest
import torch

from token_reduction.ats import ats
from token_reduction.cdpruner import cdpruner, split_cdpruner
from token_reduction.crossget import crossget
from token_reduction.dart import dart
from token_reduction.divprune import divprune
from token_reduction.downsample import downsample
from token_reduction.dycoke import dycoke, entries_to_read
from token_reduction.evit import evit
from token_reduction.evs import evs
from token_reduction.fastervlm import fastervlm
from token_reduction.fastv import fastv, fastv_random
from token_reduction.fastvid import fastvid
from token_reduction.fitprune import fitprune
from token_reduction.hiprune import hiprune
from token_reduction.hired import hired
from token_reduction.holitom import holitom, merge_in_turn
from token_reduction.holov import holov
from token_reduction.m3 import m3
from token_reduction.pixelprune import pixelprune
from token_reduction.prumerge import prumerge
from token_reduction.pyramiddrop import pyramiddrop
from token_reduction.sampling import random, sequential
from token_reduction.sparsevlm import recycle, sparsevlm, text_raters
from token_reduction.tokens.checks import raise_deferred
from token_reduction.tome import tome
from token_reduction.v2drop import v2drop
from token_reduction.vidcom2 import vidcom2
from token_reduction.visionzip import visionzip
from token_reduction.vispruner import vispruner
from token_reduction.vscan import vscan
from token_reduction.vtw import vtw, withdrawal_divergence

N = 100


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


START = torch.zeros(2, dtype=torch.long, device="meta")
FREE = {
    "prumerge": lambda: prumerge(meta(2, N, 8), meta(2, N + 1, 8), meta(2, N + 1, 8), keep=9),
    "prumerge paper": lambda: prumerge(
        meta(2, N, 8), meta(2, N + 1, 8), meta(2, N + 1, 8), keep=9, spatial=True, variant="paper"
    ),
    "divprune": lambda: divprune(meta(2, N, 8), 9),
    "fastv": lambda: fastv(meta(2, 4, N + 9), 9, start=START, image_tokens=N),
    "fastv random": lambda: fastv_random(9, start=0, image_tokens=N, length=N + 9, device="meta"),
    "vtw": lambda: vtw(N + 9, start=START, image_tokens=N, device="meta"),
    "vtw divergence": lambda: withdrawal_divergence(meta(2, N), meta(2, N)),
    "fitprune": lambda: fitprune(meta(2, 4, N + 9, N + 9), 9, start=START, image_tokens=N),
    "tome": lambda: tome(meta(2, N, 8), meta(2, N, 8), 9, trace=True),
    "evit": lambda: evit(meta(2, N + 1, 8), meta(2, 4, N + 1), 9, trace=True),
    "ats": lambda: ats(meta(2, N + 1, 8), meta(2, 4, N + 1), meta(2, 4, N + 1, 8), 9, trace=True),
    "crossget": lambda: crossget(meta(2, N, 8), meta(2, N, 8), meta(2, N, N), 9, trace=True),
    "sequential": lambda: sequential(meta(2, N, 8), 9),
    "m3": lambda: m3(meta(2, N, 8), 25),
    "fastervlm": lambda: fastervlm(meta(2, N, 8), meta(2, 4, N), 9),
    "vispruner": lambda: vispruner(meta(2, N, 8), meta(2, 4, N), 9),
    "visionzip": lambda: visionzip(
        meta(2, N, 8), meta(2, 4, N), meta(2, N, 8), dominant=9, contextual=4
    ),
    "cdpruner": lambda: cdpruner(meta(2, N, 8), meta(2, N, 8), meta(3, 8), 9),
    "cdpruner in halves": lambda: split_cdpruner(meta(N + 1, 8), meta(3, 8), 9),
    "dart": lambda: dart(
        meta(4, N + 9, 8), meta(N + 9, 8), 16, start=2, image_tokens=N, order="norm"
    ),
    "pyramiddrop": lambda: pyramiddrop(
        meta(2, 4, 8), meta(2, 4, N + 9, 8), start=START, image_tokens=N
    ),
    "random": lambda: random(meta(2, N, 8), 9),
    "downsample": lambda: downsample(meta(2, 3, 56, 56), 4, patch=14),
    "holov": lambda: holov(meta(2, N, 8), meta(2, 4, N), 9),
    "hiprune": lambda: hiprune(meta(2, N, 8), meta(2, N), meta(2, N), 9, side=10),
    "vscan": lambda: vscan(meta(2, N, 8), meta(2, 4, N), meta(2, 4, N), 20, side=10),
    "v2drop": lambda: v2drop(meta(2, N, 8), meta(2, N, 8), 0.5),
    "evs": lambda: evs(meta(6, N, 8), 0.3),
    "vidcom2": lambda: vidcom2(meta(6, N, 8), 0.3),
    "dycoke": lambda: dycoke(meta(6, N, 8), 0.3),
    "dycoke decoding": lambda: entries_to_read(meta(2, 4, N), (meta(2, N), meta(2, 30).long())),
    "pixelprune": lambda: pixelprune(meta(2, 10, 10, 12)),
    "holitom merging": lambda: merge_in_turn(meta(2, N, 8), meta(2, 4, N), 0.5),
    "sparsevlm": lambda: recycle(
        meta(2, N, 8),
        sparsevlm(
            meta(2, 4, 7, N + 9),
            text_raters(meta(2, N, 8), meta(2, 7, 8)),
            9,
            start=2,
            image_tokens=N,
        ),
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_nothing_is_read_back(name) -> None:
    FREE[name]()


# The length of these depends on the data (or, for DART's set, on a Python container). PixelPrune's function
# says which cells stay; its plug reads them back, once per forward.
FORCED = {
    "prumerge": lambda: prumerge(meta(2, N, 8), meta(2, N + 1, 8), meta(2, N + 1, 8)),
    "prumerge+": lambda: prumerge(
        meta(1, N, 8), meta(1, N + 1, 8), meta(1, N + 1, 8), keep=9, spatial=True
    ),
    "hired": lambda: hired(meta(5, 4, N), meta(5, 4, N), grid=(2, 2)),
    "dart": lambda: dart(meta(4, N + 9, 8), meta(N + 9, 8), 16, start=2, image_tokens=N),
    "fastvid": lambda: fastvid(meta(6, N, 8), meta(6, 4), meta(6, N), 0.3),
    "holitom": lambda: holitom(meta(6, N, 8), meta(6, N), 0.3),
}


@pytest.mark.parametrize("name", FORCED)
def test_and_exactly_these_have_to(name) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match=r"[Mm]eta"):
        FORCED[name]()


@pytest.mark.parametrize("name", [*FORCED])
def test_they_do_it_once(name, monkeypatch) -> None:
    reads = []
    tolist = torch.Tensor.tolist

    def counted(self: torch.Tensor) -> object:
        reads.append(self.shape)
        return tolist(self)

    def refused(self: torch.Tensor) -> object:
        raise AssertionError(f"a second way to read a tensor of shape {tuple(self.shape)} back")

    def value(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))

    calls = {
        "prumerge": lambda: prumerge(value(2, N, 8), value(2, N + 1, 8), 9 * value(2, N + 1, 8)),
        "prumerge+": lambda: prumerge(
            value(1, N, 8), value(1, N + 1, 8), value(1, N + 1, 8), keep=9, spatial=True
        ),
        "hired": lambda: hired(value(5, 4, N), value(5, 4, N), grid=(2, 2)),
        "dart": lambda: dart(value(4, N + 9, 8), value(N + 9, 8), 16, start=2, image_tokens=N),
        "fastvid": lambda: fastvid(value(6, N, 8), value(6, 4), value(6, N), 0.3),
        "holitom": lambda: holitom(value(6, N, 8), value(6, N), 0.3, threshold=0.5),
    }
    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    monkeypatch.setattr(torch.Tensor, "item", refused)
    monkeypatch.setattr("token_reduction.tokens.checks.check_mode", lambda _: "deferred")
    calls[name]()
    raise_deferred()
    on_device = [shape for shape in reads if shape != (4,)] if name == "hired" else reads
    assert len(on_device) == 1
