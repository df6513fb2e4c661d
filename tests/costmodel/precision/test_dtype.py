"""A checkpoint's dtype, and what stands in for it on a device that does not have it."""

from __future__ import annotations

import pytest
from llava_parameters import ALL

from costmodel import estimate, load_model, sweep
from costmodel.precision.resolving import resolve_precision
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError, MissingPeakError

XEON, V100, TPU = "cpu-intel-xeon-8480plus", "nvidia-v100-sxm2-32gb", "google-tpu-v5e"


@pytest.mark.parametrize(
    ("keys", "name", "size"),
    [
        ({"dtype": "float32"}, "fp32", 4),
        ({"dtype": None, "torch_dtype": "float32"}, "fp32", 4),
        ({"dtype": "bfloat16", "torch_dtype": "float32"}, "bf16", 2),
        ({"dtype": "torch.bfloat16"}, "bf16", 2),
        ({"dtype": "auto"}, "fp16", 2),
        ({"dtype": None}, "fp16", 2),
    ],
)
def test_the_dtype_is_priced(checkpoint, resolved, weight_bytes, keys, name, size):
    model = checkpoint(**keys)
    assert resolved(model).precision.name == name
    assert weight_bytes(model) == size * ALL


def test_the_public_case_does_not_fit(checkpoint):
    cost = estimate(checkpoint(dtype="float32"), "nvidia-rtx-4090")
    assert (cost.memory.weight_bytes, cost.memory.fits) == (28_253_708_288, False)


def test_parts_say_it_where_the_whole_does_not(tmp_path, checkpoint, resolved):
    model = checkpoint(
        dtype=None,
        text_config={"model_type": "llama", "vocab_size": 32064, "dtype": "bfloat16"},
    )
    precision = resolved(model).precision
    assert (precision.text.name, precision.vision.name) == ("bf16", "bf16")


@pytest.mark.parametrize(
    ("dtype", "device", "priced", "warned"),
    [
        ("bfloat16", V100, "fp16", True),
        ("bfloat16", "nvidia-t4", "fp16", True),
        ("bfloat16", "nvidia-l4", "bf16", False),
        ("float16", XEON, "bf16", True),
        ("float32", TPU, "bf16", True),
        ("float32", V100, "fp32", False),
    ],
)
def test_what_the_device_lacks_is_replaced_with_a_warning(
    checkpoint, resolved, dtype, device, priced, warned
):
    found = resolved(checkpoint(dtype=dtype), device)
    assert found.precision.name == priced
    assert ("dtype" in " ".join(found.warnings)) == warned


@pytest.mark.parametrize(
    ("device", "priced"),
    [(XEON, "bf16"), (TPU, "bf16"), ("cpu-amd-epyc-9654", "bf16"), (V100, "fp16"),
     ("apple-m4-max", "fp16"), ("nvidia-a100-sxm4-80gb", "fp16")],
)  # fmt: skip
def test_a_shape_without_a_checkpoint_takes_what_the_device_has(device, priced):
    cost = estimate("llava-1.5-7b", device)
    assert cost.inputs["precision"] == priced
    assert not any("dtype" in line for line in cost.warnings)


def test_a_named_precision_is_not_replaced(checkpoint):
    for model in ("llava-1.5-7b", checkpoint({"quant_method": "fp8"})):
        with pytest.raises(MissingPeakError, match="fp16"):
            estimate(model, XEON, precision="fp16")
        with pytest.raises(MissingPeakError, match="fp8"):
            estimate(model, V100, precision="fp8-block")


def test_a_sweep_and_a_scaled_checkpoint_read_it_too(checkpoint):
    model = checkpoint({"quant_method": "awq"})
    frame = sweep(model, ["nvidia-l4", "nvidia-rtx-3090"], visual_tokens=[0, 576])
    assert set(frame.precision) == {"awq"}
    half = load_model(model, scale="layers=4")
    assert resolve_precision("AUTO", half, get_hardware("nvidia-l4")).precision.name == "awq"


def test_conventions_keep_fp16(checkpoint):
    model = checkpoint({"quant_method": "awq"})
    assert estimate(model, "nvidia-l4", convention="fastv").inputs["precision"] == "fp16"


def test_auto_stands_alone():
    with pytest.raises(InvalidInputError, match="auto stands alone"):
        estimate("llava-1.5-7b", "nvidia-l4", precision="text=auto,vision=w8a8")
