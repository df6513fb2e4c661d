from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from hardware_specs.errors import MissingDependencyError, UnsupportedError
from profiling.subject.models import build_model
from profiling.subject.quantisation import check_device, quantise_module


@pytest.mark.parametrize(
    ("label", "capability", "able"),
    [("w8a16", (7, 0), False), ("w8a16", (7, 5), True), ("w8a8", (8, 0), True),
     ("w4a16", (7, 5), False), ("w4a16", (8, 0), True), ("fp8", (8, 0), False),
     ("fp8", (8, 9), True), ("fp8", (9, 0), True)],
)  # fmt: skip
def test_devices_run_what_their_capability_allows(
    label: str, capability: tuple[int, int], able: bool
) -> None:
    if able:
        check_device(label, "cuda", capability)
        return
    with pytest.raises(UnsupportedError, match=f"{label} needs CUDA compute capability") as caught:
        check_device(label, "cuda", capability)
    assert "it can run fp16" in str(caught.value)


@pytest.mark.parametrize("label", ["w4a16", "fp8"])
def test_a_cpu_refuses_what_has_no_cpu_kernels(label: str, tiny_source: str) -> None:
    with pytest.raises(UnsupportedError, match="on a CPU run fp32, fp16, bf16, w8a16, w8a8"):
        build_model(tiny_source, dtype=label, device="cpu")


@pytest.mark.parametrize("label", ["w8a16", "w8a8"])
def test_only_the_language_model_is_quantised(label: str, tiny_source: str) -> None:
    pytest.importorskip("torchao")
    model: Any = build_model(tiny_source, dtype=label, device="cpu")
    plain = torch.nn.Parameter
    language = model.model.language_model.layers[0].mlp.up_proj.weight
    assert type(language.data) is not torch.Tensor or type(language) is not plain
    for other in (model.lm_head, model.model.multi_modal_projector.linear_1):
        assert type(other.weight) is plain
        assert other.weight.dtype == torch.bfloat16
    with torch.no_grad():
        logits = model(input_ids=torch.ones(1, 3, dtype=torch.long)).logits
    assert torch.isfinite(logits).all()


def test_without_torchao_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingDependencyError, match=r"vlm-roofline\[quantise\]"):
        quantise_module(torch.nn.Linear(4, 4), "w8a16")


def test_kernels_that_are_not_there_are_named() -> None:
    pytest.importorskip("torchao")
    layer = torch.nn.Sequential(torch.nn.Linear(256, 256, dtype=torch.bfloat16))
    with pytest.raises(UnsupportedError, match="torchao cannot make w4a16 weights here"):
        quantise_module(layer, "w4a16")


@pytest.mark.parametrize("label", ["w8a16", "w8a8", "w4a16", "fp8"])
def test_no_recipe_sets_up_the_compiler_of_the_process(label: str) -> None:
    pytest.importorskip("torchao")
    from profiling.subject.quantisation import _recipe

    assert _recipe(label).set_inductor_config is False


def test_a_quantised_product_names_its_kernel() -> None:
    from profiling.microbench.cases import gemm_case

    assert gemm_case(1, 256, 256, "w4a16", "meta").sizes["kernel"] == "tinygemm"
    assert "kernel" not in gemm_case(1, 256, 256, "bf16", "meta").sizes
