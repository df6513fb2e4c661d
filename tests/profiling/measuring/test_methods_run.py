"""Token-reduction methods inside measured runs: their own time, tokens and FLOPs as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from costmodel import estimate
from hardware_specs.errors import InvalidInputError, UnsupportedError
from profiling.counting.one_run import count_run
from profiling.measuring.campaign import run_campaign
from profiling.measuring.planning import check
from profiling.measuring.profile import profile
from profiling.records.measurement import TOTAL, Configuration
from profiling.subject.execution import Execution

if TYPE_CHECKING:
    from pathlib import Path

#: LLaVA-1.5's own token counts at a sixteenth of its width.
MODEL = "llava-1.5-7b@layers=4,width=1/16"


def _measure(quick: Any, **changes: Any) -> Any:
    (record,) = profile(MODEL, device="cpu", dtype="fp32", options=quick, **changes)
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize(
    ("method", "keep", "entering", "cache"),
    [
        ("divprune", 64, 64, (104,) * 4),
        ("spatial", 36, 36, (76,) * 4),
        # FastV prunes behind layer 2: 576 enter, 40 text and 64 visual tokens stay in the cache.
        ("fastv", 64, 576, (616, 616, 104, 104)),
    ],
)
def test_tokens_and_caches_are_what_the_method_leaves(
    method: str, keep: int, entering: int, cache: tuple[int, ...], quick: Any
) -> None:
    record = _measure(quick, method=method, keep=keep, output_tokens=1)
    assert record.tokens.visual_in == 576
    assert record.tokens.visual_llm == entering
    assert record.tokens.cache_lengths == cache
    assert set(record.stages) == {
        "vision", "projector", "reduction", "prefill", "decode", TOTAL,
    }  # fmt: skip
    assert min(record.stages["reduction"].event_s) > 0
    assert record.stages["reduction"].kernels > 0


def test_a_token_count_is_what_a_method_is_asked_to_keep(quick: Any) -> None:
    record = _measure(quick, method="divprune", visual_tokens=10)
    assert record.tokens.visual_llm == 10


def test_the_published_default_is_used_when_nothing_is_said(quick: Any) -> None:
    # DivPrune keeps 9.8 % of 576: round(56.448) = 56.
    assert _measure(quick, method="divprune").tokens.visual_llm == 56


@pytest.mark.parametrize(("method", "keep"), [("divprune", 64), ("sequential", 40)])
def test_the_stages_after_a_method_count_what_the_cost_model_says(method: str, keep: int) -> None:
    from costmodel.models import load_model
    from profiling.subject.models import build_model

    model = build_model(MODEL, dtype="fp32", device="cpu")
    configuration = Configuration(MODEL, "fp32", method=method, keep=keep, device="cpu")
    execution = Execution(model, load_model(MODEL), configuration)
    with execution.ready():
        counts, _ = count_run(execution)
    expected = estimate(MODEL, "nvidia-a100-sxm4-80gb", method=method, keep=keep, precision="fp32")
    for stage in ("vision", "projector", "reduction"):
        assert counts[stage].flops == expected.stages[stage].flops, stage
    assert counts["prefill"].flops == expected.stages["prefill"].flops


def test_the_model_is_itself_again_after_a_method(
    tiny: Any, tiny_shape: Any, configure: Any
) -> None:
    import torch

    plain = Execution(tiny, tiny_shape, configure(visual_tokens=16))
    with plain.ready():
        before = plain.first_logits().logits
    reduced = Execution(tiny, tiny_shape, configure(method="spatial", keep=4))
    with reduced.ready():
        reduced.run()
    with plain.ready():
        torch.testing.assert_close(plain.first_logits().logits, before, rtol=0, atol=0)


def test_methods_that_do_not_fit_are_refused_before_anything_runs(tiny_source: str) -> None:
    def asked(**changes: Any) -> list[Configuration]:
        return [Configuration(MODEL, "fp32", device="cpu", **changes)]

    with pytest.raises(InvalidInputError, match="layers 0 to 3"):
        check(asked(method="vtw"))
    with pytest.raises(InvalidInputError, match="takes no keep"):
        check(asked(method="vtw", keep=64))
    with pytest.raises(UnsupportedError):
        check([Configuration("llama-2-7b", "fp32", method="divprune", device="cpu")])


def test_a_method_that_fails_while_running_is_a_record_of_its_own(
    tmp_path: Path, quick: Any, tiny_source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiling.subject import execution as module

    def refuse(self: Any) -> Any:
        if self.configuration.method != "none":
            raise UnsupportedError("the method cannot do this")
        return real(self)

    real = module.Execution.first_logits
    monkeypatch.setattr(module.Execution, "first_logits", refuse)
    configurations = [
        Configuration(tiny_source, "fp32", method=method, visual_tokens=4, device="cpu")
        for method in ("none", "spatial")
    ]
    records = list(run_campaign(configurations, tmp_path, rounds=1, options=quick))
    assert {r.configuration.method: (r.status, r.error) for r in records} == {
        "none": ("ok", None),
        "spatial": ("failed", "the method cannot do this"),
    }
