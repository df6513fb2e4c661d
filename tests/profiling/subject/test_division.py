"""A model divided among processes answers as the whole one does; threads stand in for processes here."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_models import LLAVA, TEXT
from transformers import AutoConfig

from costmodel import estimate, load_model
from costmodel.parallel.sharding import rank_model
from hardware_specs.errors import InvalidInputError, UnsupportedError, VlmRooflineError
from profiling.devices.ranks import place
from profiling.measuring.planning import check, grid
from profiling.measuring.point import nothing_accepted
from profiling.measuring.together import WAIT, follow, slowest
from profiling.records.measurement import (
    COMMUNICATION,
    DECODE_COMMUNICATION,
    Configuration,
    Measurement,
    Ranks,
    RankSamples,
    Sampling,
    StageSamples,
)
from profiling.records.readings import DeviceState
from profiling.subject.division import Collectives, divide, tensor_plan
from profiling.subject.execution import Execution
from profiling.subject.models import build_model, model_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

A100 = "nvidia-a100-sxm4-80gb"


@dataclass
class Meeting:
    """Where threads leave their tensors for each other."""

    size: int
    left: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = [None] * self.size
        self.barrier = threading.Barrier(self.size, timeout=20)

    def exchange(self, rank: int, tensor: Any) -> list[Any]:
        self.left[rank] = tensor.clone()
        self.barrier.wait()
        found = list(self.left)
        self.barrier.wait()
        return found


def run_divided(
    model: Any, size: int, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Any, Any, Collectives]]:
    """Return what a function of a share gave, the share, and its collectives, of every thread."""
    meeting = Meeting(size)
    mine = threading.local()

    def all_reduce(tensor: torch.Tensor) -> None:
        tensor.copy_(sum(meeting.exchange(mine.rank, tensor)))

    def all_gather(parts: list[torch.Tensor], tensor: torch.Tensor) -> None:
        for part, found in zip(parts, meeting.exchange(mine.rank, tensor), strict=True):
            part.copy_(found)

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    monkeypatch.setattr("torch.distributed.all_gather", all_gather)
    results: list[Any] = [None] * size

    def work(rank: int) -> None:
        mine.rank = rank
        share, collectives = copy.deepcopy(model), Collectives(rank, size)
        divide(share, collectives)
        with torch.no_grad():
            results[rank] = run(share), share, collectives

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result is not None for result in results)
    return results


def random_model(document: Mapping[str, Any]) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(**document)
    model = model_class(config)._from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():  # biases and norms too: none of them may be counted twice
        parameter.data.normal_(0.0, 0.2)
    return model


#: Biases behind every product, a vocabulary that does not divide, heads that share keys, tied embeddings.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {
        **TEXT, "vocab_size": 127, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": False,
    },
    "qwen3": {**TEXT, "model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "gemma3_text": {
        **TEXT, "model_type": "gemma3_text", "head_dim": 16, "tie_word_embeddings": True,
        "vocab_size": 127,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_divided_model_answers_as_the_whole_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(KINDS[kind])
    ids = torch.arange(0, 124, 11)[None]
    with torch.no_grad():
        whole = model(ids).logits
    for logits, _, _ in run_divided(model, 2, lambda share: share(ids).logits, monkeypatch):
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_a_share_holds_and_sends_what_is_predicted(
    tiny: Any, tiny_shape: Any, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny LLaVA, with pictures and two decode steps, as `profile` runs it."""
    configuration = configure(output_tokens=2)

    def run(model: Any) -> tuple[torch.Tensor, dict[str, int]]:
        execution = Execution(model, tiny_shape, configuration)
        output = execution.first_logits()
        first = output.logits.clone()
        for _ in range(2):
            output = execution.decode(output)
        return torch.cat((first, output.logits), dim=1)

    with torch.no_grad():
        whole = run(tiny)
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")
    predicted = estimate(tiny_shape, A100, precision="fp32", text_tokens=7, output_tokens=2, tp=2)
    assert predicted.communication is not None
    for logits, share, collectives in run_divided(tiny, 2, run, monkeypatch):
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-5)
        held = sum(parameter.numel() for parameter in share.parameters())
        assert held == rank_model(tiny_shape, 2).parameters
        assert dict(collectives.sent) == predicted.communication["bytes"]


def test_collectives_are_told_apart_from_those_of_the_decode(
    tiny: Any, tiny_shape: Any, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per layer two sums; one behind the embedding, and one gather behind the head."""
    share, collectives = copy.deepcopy(tiny), Collectives(0, 2)
    divide(share, collectives)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor)
    monkeypatch.setattr("torch.distributed.all_gather", lambda parts, tensor: parts)
    seen: list[str] = []

    class Observer:
        def begin(self, stage: str) -> None:
            seen.append(stage)

        def end(self, stage: str) -> None:
            seen.append(f"/{stage}")

    with Execution(share, tiny_shape, configure(output_tokens=1)).ready() as execution:
        execution.run(Observer())
    # Text stands before and behind the picture, so it is looked up twice.
    assert seen.count(COMMUNICATION) == seen.count(f"/{COMMUNICATION}") == 2 + 4 + 1
    assert seen.count(DECODE_COMMUNICATION) == 1 + 4 + 1
    prefill = seen[seen.index("prefill") : seen.index("/prefill")]
    assert prefill.count(COMMUNICATION) == 5
    decode = seen[seen.index("decode") :]
    assert decode.count(DECODE_COMMUNICATION) == 6


def test_random_shares_are_built_without_the_whole(tiny_source: str) -> None:
    """Every parameter is made once, at its own size; what processes repeat is the same on each."""
    shares = []
    for rank in range(2):
        collectives = Collectives(rank, 2)
        shares.append(
            build_model(
                tiny_source, dtype="fp32", device="cpu",
                divide=lambda model, group=collectives: divide(model, group),
            )
        )  # fmt: skip
    first, second = (dict(share.named_parameters()) for share in shares)
    assert first["model.language_model.layers.0.self_attn.q_proj.weight"].shape == (32, 64)
    assert first["model.language_model.layers.0.mlp.down_proj.weight"].shape == (64, 80)
    assert all(torch.equal(first[name], second[name]) for name in first)
    whole = build_model(tiny_source, dtype="fp32", device="cpu")
    assert {name for name, _ in whole.named_parameters()} == set(first)
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffer, dict(shares[0].named_buffers())[name])


def test_models_without_a_plan_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="no tensor-parallel plan for the layers of Qwen3VL"):
        tensor_plan(build_model("qwen3-vl-8b", device="meta"))
    with pytest.raises(UnsupportedError, match=r"mlp\.experts"):
        tensor_plan(build_model("qwen3-vl-30b-a3b", device="meta"))
    found = tensor_plan(build_model("llava-1.5-7b", device="meta"))
    assert len(found) == 32 * 7 + 2
    assert not [name for name in found if "vision" in name]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"tp": 2},
            "tp=2 is measured by as many processes, and there is one; start it with torchrun",
        ),
        ({"tp": 2, "here": 4}, "there are 4"),
        ({"tp": 4, "here": 4}, "tp=4 does not divide the 2 KV heads"),
        ({"tp": 3, "here": 3}, "tp=3 does not divide the 4 attention heads"),
        ({"tp": 2, "here": 2, "mode": "compile"}, "mode 'compile' is measured with one process"),
        ({"tp": 2, "here": 2, "dtype": "w8a16"}, "w8a16"),
        (
            {"tp": 2, "here": 2, "method": "fastv(layer=1)", "keep": 4},
            "each process has its own heads",
        ),
        *(
            ({"tp": 2, "here": 2, "method": method}, "each process has its own heads")
            for method in (
                "vscan(shallow=1)",
                "divprune(keep=4)/fastv(keep=2,layer=1)",
                "dycoke(variant=both,at=1)",
            )
        ),
    ],
)
def test_what_processes_cannot_measure_together_is_refused(
    changes: dict[str, Any], words: str, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = changes.pop("here", None)
    if here is not None:
        for name, value in {
            "RANK": "0", "WORLD_SIZE": str(here), "LOCAL_RANK": "0", "MASTER_ADDR": "h",
            "MASTER_PORT": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
    with pytest.raises(VlmRooflineError, match=words):
        check([configure(**changes)])


def test_the_place_is_read_or_refused() -> None:
    given = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "h",
        "MASTER_PORT": "1",
    }
    assert place(given).rank == 1  # type: ignore[union-attr]
    for name in given:  # a scheduler that sets some of them starts no group
        assert place({key: value for key, value in given.items() if key != name}) is None
    for wrong in ({"RANK": "2"}, {"RANK": "x"}, {"LOCAL_RANK": "-1"}, {"WORLD_SIZE": "0"}):
        with pytest.raises(InvalidInputError, match="not what torchrun sets"):
            place({**given, **wrong})


def test_the_slowest_of_each_repetition_counts() -> None:
    first = StageSamples(event_s=(1.0, 4.0), step_event_s=((1.0, 2.0), (3.0, 1.0)), kernels=5)
    second = StageSamples(event_s=(2.0, 3.0), step_event_s=((0.5, 3.0), (2.0, 2.0)), kernels=5)
    found = slowest([first, second])
    assert found.event_s == (2.0, 4.0)
    assert found.step_event_s == ((1.0, 3.0), (3.0, 2.0))
    assert (found.kernels, found.busy_s) == (5, None)


def test_the_others_wait_while_another_worker_holds_what_is_left() -> None:
    told, measured = iter(["a", WAIT, WAIT, "b", ""]), list[str]()
    follow(SimpleNamespace(same=lambda _: next(told)), measured.append)  # type: ignore[arg-type]
    assert measured == ["a", "b"]


def test_what_throttled_any_process_is_said() -> None:
    cool, hot = DeviceState(), DeviceState(throttle_reasons=("hw-thermal",))
    members = tuple(RankSamples({}, device_state=state) for state in (cool, hot))
    record = Measurement(
        Configuration("llava-1.5-7b", "bf16", tp=2), "throttled", Sampling("clock"),
        ranks=Ranks("nccl", {}, members),
    )  # fmt: skip
    assert nothing_accepted(record) == "0 accepted samples: hw-thermal"


def test_a_name_says_how_many_processes_share_the_model() -> None:
    one = Configuration("llava-1.5-7b", "bf16")
    assert one.key == grid(["llava-1.5-7b"])[0].key
    assert Configuration("llava-1.5-7b", "bf16", tp=2).key != one.key
    assert load_model(LLAVA).text.num_kv_heads == 2
