"""Models, inputs and stages: what is run is what was asked, on every family."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch

from costmodel.models import load_model
from hardware_specs.errors import (
    InvalidFileError,
    InvalidInputError,
    UnknownModelError,
    UnknownPrecisionError,
    UnsupportedError,
)
from profiling.records.measurement import TOTAL
from profiling.subject.execution import Execution, cache_lengths, fork_cache
from profiling.subject.inputs import encode, visual_inputs
from profiling.subject.models import build_model, canonical_dtype, named
from profiling.subject.stages import StageHooks, anatomy
from token_reduction.caches import cache_of

if TYPE_CHECKING:
    from pathlib import Path


class Log:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def begin(self, stage: str) -> None:
        self.events.append(("begin", stage))

    def end(self, stage: str) -> None:
        self.events.append(("end", stage))


def test_random_weights_are_numbers_and_buffers_are_computed(tiny: Any) -> None:
    for name, parameter in tiny.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if parameter.ndim > 1:
            assert 0.01 < float(parameter.detach().std()) < 0.03, name
    rotary = tiny.model.language_model.rotary_emb.inv_freq
    assert float(rotary[0]) == 1.0
    # The frequencies fall geometrically: 10000 ** (-2 i / 16).
    torch.testing.assert_close(rotary, 10000.0 ** (-torch.arange(0, 16, 2) / 16.0))
    assert tiny.model.vision_tower.embeddings.position_ids.tolist() == [list(range(17))]
    assert not tiny.training
    # As `from_pretrained` leaves them: the kernels torch picks depend on it.
    assert all(parameter.requires_grad for parameter in tiny.parameters())


def test_weights_do_not_repeat_between_rows(tiny: Any) -> None:
    weight = tiny.model.language_model.layers[0].mlp.up_proj.weight
    assert not torch.equal(weight[0], weight[1])


@pytest.mark.parametrize(("dtype", "expected"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_model_is_built_in_its_dtype(tiny_source: str, dtype: str, expected: torch.dtype) -> None:
    model = build_model(tiny_source, dtype=dtype, device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_scaled_shape_keeps_its_ratios() -> None:
    full = load_model("llava-1.5-7b")
    small = load_model("llava-1.5-7b@layers=2,width=1/16")
    assert small.text.num_layers == 2
    assert small.text.hidden_size * 16 == full.text.hidden_size
    model = build_model(named("llava-1.5-7b", "layers=2,width=1/16"), dtype="bf16", device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == small.parameters


def test_names_that_do_not_exist_are_refused(tiny_source: str) -> None:
    with pytest.raises(UnknownModelError):
        build_model("no-such-model", device="cpu")
    with pytest.raises(UnknownPrecisionError):
        build_model(tiny_source, dtype="fp7", device="cpu")
    with pytest.raises(InvalidInputError, match="neither 'random' nor 'real'"):
        build_model(tiny_source, dtype="fp32", device="cpu", weights="trained")
    with pytest.raises(InvalidInputError, match="carries a scale already"):
        named("llava-1.5-7b@layers=2", "layers=4")
    with pytest.raises(UnsupportedError, match="attention"):
        build_model(tiny_source, dtype="fp32", device="cpu", attention="flash_attention_2")
    assert canonical_dtype("BFloat16") == "bf16"


def test_real_weights_come_from_safetensors(tmp_path: Path, tiny: Any) -> None:
    folder = tmp_path / "saved"
    tiny.save_pretrained(folder)
    assert (folder / "model.safetensors").exists()
    loaded = build_model(str(folder), dtype="fp32", device="cpu", weights="real")
    torch.testing.assert_close(
        loaded.model.multi_modal_projector.linear_1.weight,
        tiny.model.multi_modal_projector.linear_1.weight,
    )
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidFileError, match="no weights can be loaded"):
        build_model(str(folder), dtype="fp32", device="cpu", weights="real")


def test_real_weights_keep_the_dtype_of_their_checkpoint(tmp_path: Path, tiny_source: str) -> None:
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        folder = tmp_path / name
        build_model(tiny_source, dtype=name, device="cpu").save_pretrained(folder)
        assert build_model(str(folder), device="cpu", weights="real").dtype == dtype
    assert build_model(tiny_source, device="cpu").dtype == torch.bfloat16


def test_real_weights_of_a_scaled_shape_do_not_exist() -> None:
    with pytest.raises(InvalidInputError, match="no real weights"):
        build_model("llava-1.5-7b@layers=2", dtype="fp32", device="cpu", weights="real")


@pytest.mark.parametrize("visual", [0, 1, 5, 16, 20, 40])
def test_any_number_of_visual_tokens_reaches_the_language_model(
    tiny: Any, tiny_shape: Any, configure: Any, visual: int
) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=visual, batch_size=2))
    with execution.ready():
        tokens = execution.count_tokens()
    assert tokens.visual_llm == visual
    assert tokens.cache_lengths == (visual + 7,) * 2
    # 16 tokens per image: 20 need two images, 40 three.
    assert tokens.crops == -(-visual // 16)


def test_reduced_tokens_give_the_logits_of_the_model_called_with_them(
    tiny: Any, tiny_shape: Any, configure: Any
) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=16))
    with execution.ready():
        short = execution.first_logits().logits
        assert execution.visual is not None
        ids = execution._placeholder_ids()
        plain = tiny(input_ids=ids, **execution.visual.arguments, logits_to_keep=1).logits
    torch.testing.assert_close(short, plain)


def test_stages_come_in_their_order(tiny: Any, tiny_shape: Any, configure: Any) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=4, output_tokens=2))
    log = Log()
    with execution.ready():
        execution.run(log)
    begun = [stage for what, stage in log.events if what == "begin"]
    # The projector's second entry is the embedding of text around the visual tokens.
    assert begun == [TOTAL, "vision", "projector", "projector", "prefill", "decode", "decode"]
    assert log.events[-1] == ("end", "decode")
    assert log.events.index(("end", TOTAL)) < log.events.index(("begin", "decode"))


def test_hooks_leave_the_model_as_it_was(tiny: Any, tiny_shape: Any, configure: Any) -> None:
    def hooks() -> int:
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in tiny.modules()
        )

    before, variable = hooks(), os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK")
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=4))
    with pytest.raises(ZeroDivisionError), execution.ready():  # noqa: PT012
        # Two on the tower, two on the projector, one on the language model, one on the head.
        assert hooks() == before + 6
        assert os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] == "1"
        raise ZeroDivisionError
    assert hooks() == before
    assert os.environ.get("TRANSFORMERS_DISABLE_TORCH_CHECK") == variable


def test_decode_steps_lengthen_the_cache(tiny: Any, tiny_shape: Any, configure: Any) -> None:
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=4))
    with execution.ready():
        output = execution.first_logits()
        kept = fork_cache(cache_of(output))
        longer = execution.decode(output)
    assert cache_lengths(cache_of(longer)) == (12, 12)
    assert cache_lengths(kept) == (11, 11)
    assert cache_lengths(None) == ()


def test_a_text_model_has_prefill_and_decode_only(tiny_text_source: str, configure: Any) -> None:
    model = build_model(tiny_text_source, dtype="fp32", device="cpu")
    shape = load_model(tiny_text_source)
    execution = Execution(
        model, shape, configure(model=tiny_text_source, visual_tokens=9, output_tokens=1)
    )
    log = Log()
    with execution.ready():
        execution.run(log)
        assert execution.count_tokens().cache_lengths == (16, 16)
    assert {stage for _, stage in log.events} == {TOTAL, "prefill", "decode"}
    with pytest.raises(UnsupportedError, match="takes no pixels"):
        visual_inputs(model, shape, batch_size=1, visual_tokens=None)


FAMILIES = {
    "llava_next": {"image_grid_pinpoints": [[56, 112], [112, 112]], "vision_feature_layer": -2},
    "llava_onevision": {"image_grid_pinpoints": [[56, 112], [112, 112]], "video_token_index": 121,
                        "vision_feature_layer": -1},
    "llava_next_video": {"image_grid_pinpoints": [[56, 112], [112, 112]], "video_token_index": 121,
                         "vision_feature_layer": -2, "spatial_pool_stride": 2},
    "video_llava": {"video_token_index": 121, "vision_feature_layer": -2},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_and_is_split_into_stages(
    family: str, tmp_path: Path, configure: Any
) -> None:
    document = _family_document(family)
    (tmp_path / "config.json").write_text(json.dumps(document))
    shape = load_model(str(tmp_path))
    model = build_model(str(tmp_path), dtype="fp32", device="cpu")
    tokens = shape.visual_input().tokens
    execution = Execution(
        model, shape, configure(model=str(tmp_path), visual_tokens=tokens, batch_size=2)
    )
    log = Log()
    with execution.ready():
        execution.run(log)
        counted = execution.count_tokens()
        assert execution.visual is not None
        features = encode(model, execution.visual)
    assert {stage for _, stage in log.events} == {TOTAL, "vision", "projector", "prefill"}
    assert counted.visual_llm == tokens
    assert counted.crops == shape.visual_input().crops
    assert features.shape[0] == 2
    assert features.shape[1] >= tokens


def _family_document(family: str) -> dict[str, Any]:
    from copy import deepcopy

    vision = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
        "projection_dim": 32,
    }  # fmt: skip
    if family == "llava_onevision":
        vision["model_type"] = "siglip_vision_model"
        del vision["projection_dim"]
    text = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
        "max_position_embeddings": 4096,
    }  # fmt: skip
    return deepcopy(
        {"model_type": family, "text_config": text, "vision_config": vision,
         "image_token_index": 120, "projector_hidden_act": "gelu", **FAMILIES[family]}
    )  # fmt: skip


def test_a_stranger_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(UnsupportedError, match="has no `model` and `lm_head`"):
        anatomy(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_attaching_twice_hooks_once(tiny: Any) -> None:
    hooks = StageHooks(anatomy(tiny))
    hooks.attach()
    hooks.attach()
    log = Log()
    with hooks.observing(log), torch.no_grad():
        tiny(input_ids=torch.ones(1, 3, dtype=torch.long))
    hooks.detach()
    assert log.events == [("begin", "prefill"), ("end", "prefill")]


def test_a_cold_cache_is_flushed_before_every_run(
    tiny: Any, tiny_shape: Any, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiling.subject import execution as module

    flushed: list[int] = []
    monkeypatch.setattr(module, "_flusher", lambda _configuration: lambda: flushed.append(1))
    execution = Execution(tiny, tiny_shape, configure(visual_tokens=1, cache="cold"))
    with execution.ready():
        execution.run()
        execution.run()
    assert flushed == [1, 1]
    monkeypatch.undo()
    # The real one clears 256 MB, which is all it does.
    assert module._flusher(configure(cache="cold"))().nbytes == 256 * 1024 * 1024


@pytest.mark.parametrize("visual", [0, 5, 20])
def test_a_run_never_waits_for_the_device(
    tiny: Any, tiny_shape: Any, configure: Any, visual: int
) -> None:
    """Reading one number back would stall the queue, and forbid capture in a CUDA graph."""
    from torch.utils._python_dispatch import TorchDispatchMode

    waits: list[str] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func._schema.name
            if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::equal"):
                waits.append(name)
            return func(*args, **(kwargs or {}))

    execution = Execution(tiny, tiny_shape, configure(visual_tokens=visual, output_tokens=2))
    with execution.ready(), Watching():
        execution.run()
    assert waits == []
