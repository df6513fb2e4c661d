"""Tiny models on the CPU, one thread, and options that take milliseconds, as fixtures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.models import load_model
from hardware_specs import HardwareSpec
from profiling.measuring.point import Options
from profiling.measuring.stopping import StopRule, WarmUpRule
from profiling.records.measurement import Configuration
from profiling.subject.models import build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
}  # fmt: skip
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
    "projection_dim": 32,
}  # fmt: skip
LLAVA = {
    "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"],
    "text_config": TEXT, "vision_config": VISION, "image_token_index": 120,
    "image_seq_length": 16, "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu", "multimodal_projector_bias": True,
}  # fmt: skip


@pytest.fixture
def known_cpu(monkeypatch: pytest.MonkeyPatch) -> HardwareSpec:
    """What the probe of this machine's CPU, which takes a second or two, would have found."""
    found = HardwareSpec(
        id="cpu-measured", name="a CPU", vendor="unknown", architecture="x86_64",
        bandwidth_bytes_per_s=2e10, peaks={"fp32.vector": 1.6e11},
    )  # fmt: skip
    monkeypatch.setattr("hardware_specs.detect.measure_cpu", lambda: found)
    return found


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a LLaVA config with 16 visual tokens."""
    return _written(tmp_path_factory.mktemp("tiny-llava"), LLAVA)


@pytest.fixture(scope="session")
def tiny_text_source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a Llama config."""
    document = {**TEXT, "architectures": ["LlamaForCausalLM"]}
    return _written(tmp_path_factory.mktemp("tiny-llama"), document)


def _written(folder: Path, document: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(document))
    return str(folder)


@pytest.fixture(scope="session")
def tiny(tiny_source: str) -> Any:
    """The tiny LLaVA in float32 with random weights."""
    return build_model(tiny_source, dtype="fp32", device="cpu")


@pytest.fixture(scope="session")
def tiny_shape(tiny_source: str) -> Any:
    """The cost model's view of it."""
    return load_model(tiny_source)


@pytest.fixture
def quick() -> Options:
    """Options that spend milliseconds."""
    return Options(
        rule=StopRule(min_samples=3, min_time_s=0.0, max_time_s=0.05, max_samples=8),
        warm_up=WarmUpRule(min_time_s=0.0, max_time_s=0.02),
    )


@pytest.fixture
def configure(tiny_source: str) -> Callable[..., Configuration]:
    """Make a configuration of the tiny model on the CPU."""

    def make(**changes: Any) -> Configuration:
        return Configuration(
            **{"model": tiny_source, "dtype": "fp32", "device": "cpu", "text_tokens": 7, **changes}
        )

    return make
