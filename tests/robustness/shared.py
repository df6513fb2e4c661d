"""One of the processes that `torchrun` starts for `test_torchrun.py`: shared.py MODE MODEL [FOLDER]."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from costmodel.models import load_model
from profiling import Options, StopRule, WarmUpRule, profile
from profiling.devices.ranks import join
from profiling.measuring.together import Sharing
from profiling.subject.execution import Execution
from profiling.subject.models import build_model
from vlm_roofline.cli import main

QUICK = Options(
    rule=StopRule(min_samples=3, min_time_s=0.0, max_time_s=0.2, max_samples=8),
    warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.1),
)


def records(model: str, folder: str) -> None:
    """Every process gets the records of all, and calls twice."""
    asked = {"device": "cpu", "dtype": "fp32", "text_tokens": 7, "output_tokens": 2}
    first = profile(model, **asked, options=QUICK)
    second = profile(model, **asked, visual_tokens=[4, 8], options=QUICK)
    told = [record.to_dict() for record in (*first, *second)]
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(told))


def answers(model: str, folder: str) -> None:
    """The logits of a share of a model, and of the whole model, with the same weights."""
    from profiling.records.measurement import Configuration

    torch.manual_seed(0)
    whole = build_model(model, dtype="fp32", device="cpu")
    for parameter in whole.parameters():
        parameter.data.normal_(0.0, 0.1)
    asked = Configuration(model, "fp32", device="cpu", text_tokens=7)
    with torch.no_grad():
        expected = Execution(whole, load_model(model), asked).first_logits().logits
    group = join("cpu")
    assert group is not None
    Sharing(group).divide(whole)
    with torch.no_grad():
        found = Execution(whole, load_model(model), asked).first_logits().logits
    off = float((found - expected).abs().max() / expected.abs().max())
    (Path(folder) / f"{group.rank}.json").write_text(json.dumps(off))


def fails(model: str) -> None:
    """The second process runs out of memory in its fourth repetition."""
    if os.environ["RANK"] == "1":
        calls = [0]
        run = Execution.first_logits

        def spoilt(self: Execution) -> object:
            calls[0] += 1
            if calls[0] == 4:
                raise torch.OutOfMemoryError("no room for 3 more tensors")
            return run(self)

        Execution.first_logits = spoilt  # type: ignore[method-assign]
    options = ["--device", "cpu", "--dtype", "fp32", "--text-tokens", "7", "--max-time", "0.2"]
    sys.exit(main(["profile", model, *options]))


if __name__ == "__main__":
    {"records": records, "answers": answers, "fails": fails}[sys.argv[1]](*sys.argv[2:])
