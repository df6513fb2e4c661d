"""Bad input gets one clear error: what was given, what there is, what to do."""

import json

import pytest

from costmodel import estimate
from costmodel.conventions import list_conventions
from hardware_specs.errors import (
    InvalidInputError,
    MissingPeakError,
    UnknownHardwareError,
    UnknownMethodError,
    UnknownModelError,
    UnknownNameError,
    UnknownPrecisionError,
    VlmRooflineError,
)
from vlm_roofline.cli import main

A100 = "nvidia-a100-sxm4-80gb"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": "llava-1.5-9b"}, UnknownModelError, "llava-1.5-7b"),
        ({"hardware": "nvidia-a100"}, UnknownHardwareError, A100),
        ({"hardware": ""}, UnknownHardwareError, "unknown hardware"),
        ({"precision": "fp17"}, UnknownPrecisionError, "fp16"),
        ({"precision": "fp8"}, MissingPeakError, "fp8"),
        (
            {"hardware": "nvidia-v100-sxm2-16gb", "precision": "bf16"},
            MissingPeakError,
            "fp16.matrix",
        ),
        ({"hardware": "nvidia-v100-sxm2-16gb", "precision": "w8a8"}, MissingPeakError, "dp4a"),
        ({"hardware": "nvidia-h100-sxm5-80gb", "precision": "w4a4"}, MissingPeakError, "int4"),
        ({"visual_tokens": -1}, InvalidInputError, "visual_tokens"),
        ({"visual_tokens": 1.5}, InvalidInputError, "1.5"),
        ({"visual_tokens": True}, InvalidInputError, "True"),
        ({"visual_tokens": 10**12}, InvalidInputError, "100000000"),
        ({"text_tokens": "40"}, InvalidInputError, "text_tokens"),
        ({"batch_size": 0}, InvalidInputError, "batch_size"),
        ({"output_tokens": -3}, InvalidInputError, "output_tokens"),
        ({"visual_tokens": 0, "text_tokens": 0}, InvalidInputError, "no prompt"),
        ({"execution": "hf-eeger"}, UnknownNameError, "did you mean hf-eager"),
        ({"attention": "sparse"}, InvalidInputError, "flash"),
        ({"logits": "some"}, InvalidInputError, "last"),
        ({"vision_layers": 3}, InvalidInputError, "useful"),
        ({"method": "fastw"}, UnknownMethodError, "fastv"),
        ({"keep": 0.5}, InvalidInputError, "method"),
        ({"method": "divprune", "keep": 1.5}, InvalidInputError, "1.5"),
        ({"method": "divprune", "keep": 577}, InvalidInputError, "577"),
        ({"method": "fastv", "layer": 33}, InvalidInputError, "33"),
        ({"method": "divprune", "model": "llama-2-7b"}, InvalidInputError, "vision tower"),
        ({"model": "llama-2-7b", "frames": 4}, InvalidInputError, "vision tower"),
        ({"method": "vtw", "text_tokens": 0}, InvalidInputError, "leaves no token"),
        ({"method": "vtw", "layer": 2, "text_tokens": 0}, InvalidInputError, "keep more"),
        ({"method": "divprune", "keep": True}, InvalidInputError, "True"),
        ({"method": "fastv", "layer": 2.0}, InvalidInputError, "2.0"),
        ({"method": "fastv", "layer": [2, 3]}, InvalidInputError, "sweep takes lists"),
        ({"precision": "text=fp16,projector=fp8"}, MissingPeakError, "fp8"),
        ({"convention": "fastw"}, VlmRooflineError, "fastv"),
        ({"convention": "fastv", "logits": "all"}, InvalidInputError, "logits='all'"),
        ({"convention": "fastv", "execution": "hf-eager"}, InvalidInputError, "hf-eager"),
        ({"convention": "fastv", "calibration": "generic"}, InvalidInputError, "generic"),
    ],
)
def test_one_clear_error(arguments: dict, error: type, says: str) -> None:
    given_ = {"model": "llava-1.5-7b", "hardware": A100, **arguments}
    with pytest.raises(error) as caught:
        estimate(given_.pop("model"), given_.pop("hardware"), **given_)
    assert says in str(caught.value)


def test_what_equals_as_a_key_is_told_apart() -> None:
    """1, 1.0 and True are one key of a dictionary: one token, every token, and a mistake."""
    given = {"model": "llava-1.5-7b", "hardware": A100, "method": "divprune"}
    few, all_ = (estimate(**given, keep=keep) for keep in (1, 1.0))
    assert type(few.inputs["keep"]) is int
    assert type(all_.inputs["keep"]) is float
    assert all_.totals.flops > 9 * few.totals.flops
    with pytest.raises(InvalidInputError, match="True"):
        estimate(**given, keep=True)
    fastv = {**given, "method": "fastv"}
    assert estimate(**fastv, layer=1).inputs["layer"] == 1
    for layer in (True, 1.0):
        with pytest.raises(InvalidInputError, match="whole number"):
            estimate(**fastv, layer=layer)
    # A layer is looked at where everything is kept, too.
    with pytest.raises(InvalidInputError, match="has layers 0 to 31"):
        estimate(**fastv, keep=1.0, layer=99)
    with pytest.raises(InvalidInputError, match="prumerge takes no layer"):
        estimate(**{**given, "method": "prumerge"}, keep=1.0, layer=5)


def test_numbers_of_numpy_are_numbers() -> None:
    """They overflow where Python's do not, and JSON does not know them."""
    import numpy as np

    given = {"batch_size": 4000, "text_tokens": 50, "output_tokens": 3, "layer": 4}
    plain = estimate("llava-1.5-7b", A100, method="fastv", **given)
    narrow = {name: np.int32(value) for name, value in given.items()}
    assert estimate("llava-1.5-7b", A100, method="fastv", **narrow).to_dict() == plain.to_dict()
    for model, size in (
        ("llava-next-vicuna-7b", {"image_size": (np.int64(480), np.int64(640))}),
        ("video-llava-7b", {"frames": np.int8(4)}),
    ):
        json.dumps(estimate(model, A100, **size).to_dict(), allow_nan=False)


def test_counts_beyond_the_floats_are_exact() -> None:
    """10^8 samples of 9 TFLOP: far beyond 2^53, and to the unit."""
    one, many = (estimate("llava-1.5-7b", A100, batch_size=b) for b in (1, 10**8))
    assert many.totals.flops == 10**8 * one.totals.flops
    json.dumps(many.to_dict(), allow_nan=False)


def test_nobody_changes_a_cost_that_is_handed_out_again() -> None:
    cost = estimate("llava-1.5-7b", A100)
    with pytest.raises(AttributeError):
        cost.stages["vision"].flops = 0
    cost.inputs["precision"] = "changed"
    assert estimate("llava-1.5-7b", A100).inputs["precision"] == "fp16"


def test_conventions_take_image_sizes_and_frames() -> None:
    """The tokens of the image are what they count, whatever counts them."""
    cost = estimate("llava-next-vicuna-7b", A100, convention="divprune", image_size=(480, 640))
    assert cost.inputs["visual_tokens"] == 2340
    given = estimate("llava-next-vicuna-7b", A100, convention="divprune", visual_tokens=2340)
    assert cost.totals.flops == given.totals.flops


def test_unknown_stage_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="unknown stage 'prefil'; did you mean prefill"):
        estimate("llava-1.5-7b", A100).stages["prefil"]


def test_over_capacity_warns() -> None:
    cost = estimate("llava-1.5-13b", "nvidia-v100-pcie-16gb")
    assert cost.memory.fits is False
    assert any("over the" in line for line in cost.warnings)


def test_beyond_trained_positions_warns() -> None:
    cost = estimate("llava-1.5-7b", A100, visual_tokens=576, text_tokens=4000)
    assert any("positions" in line for line in cost.warnings)
    assert cost.totals.flops > 0


@pytest.mark.parametrize(
    "line",
    [
        "estimate llava-1.5-9b -d nvidia-a100-sxm4-80gb",
        "estimate llava-1.5-7b -d nvidia-a100",
        "estimate llava-1.5-7b",
        "estimate llava-1.5-7b -d nvidia-a100-sxm4-80gb --visual-tokens -5",
        "estimate llava-1.5-7b -d nvidia-a100-sxm4-80gb --visual-tokens many",
        "estimate llava-1.5-7b -d nvidia-a100-sxm4-80gb --method divprune --keep none",
        "estimate llava-1.5-7b -d nvidia-a100-sxm4-80gb --precision fp8",
        "estimate llava-1.5-7b -d nvidia-a100-sxm4-80gb --calibration nowhere.json",
        "estimate llava-1.5-7b -d nvidia-a100-sxm4-80gb --image-size big",
        "sweep llava-1.5-7b -d nvidia-a100-sxm4-80gb --visual-tokens 9:1",
        "sweep llava-1.5-7b -d nvidia-a100-sxm4-80gb --visual-tokens 0:1000000000",
        "sweep llava-1.5-7b -d nvidia-a100-sxm4-80gb --out table.xlsx",
        "sweep llava-1.5-7b -d nvidia-a100-sxm4-80gb --out /nowhere/at/all/table.csv",
        "break-even llava-1.5-7b -d nvidia-a100-sxm4-80gb --latency-ms 0",
        "frobnicate",
    ],
)
def test_exit_code_2_and_no_traceback(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err
    assert "Traceback" not in caught.err


@pytest.mark.parametrize("convention", [name for name in list_conventions() if "llm" not in name])
def test_other_peoples_counting_on_the_command_line(
    convention: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["estimate", "llava-1.5-7b", "-d", A100, "--convention", convention, "--ops"]
    assert main(line) == 0
    text = capsys.readouterr().out
    counts = estimate("llava-1.5-7b", A100, convention=convention)
    assert "None" not in text
    assert "peak" not in text
    assert "counted as flop" in text
    assert all(row.name in text for row in counts.ops)
    assert main([*line, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["ops"]
    assert sum(row["flops"] for row in rows) == pytest.approx(counts.totals.flops)


def test_a_tool_that_counts_bytes_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    line = "estimate llama-2-7b -d nvidia_V100 --convention llmviewer-2024-02 --ops"
    assert main(line.split()) == 0
    text = capsys.readouterr().out
    assert "q_proj" in text
    assert "TTFT 14.948 ms" in text


def test_an_unknown_convention_is_told_of_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "llava-1.5-7b", "-d", A100, "--convention", "papers"]) == 2
    assert "there is: torch, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--method divprune", "divprune at its default of 0.098"),
        ("--method fastervlm --keep 64", "fastervlm keep 64 (patches of each crop kept)"),
        ("--method tome(r=8)", "batch 1, tome(r=8)"),
        ("--method fastv(variant=paper)", "fastv(variant=paper) at its default of 0.5"),
        (
            "--method divprune/fastv(layer=3)",
            "divprune at its default of 0.098 (visual tokens kept), then",
        ),
        ("--method divprune --keep 64", "divprune keep 64"),
        ("--method fastv --keep 0.5 --layer 3", "fastv keep 0.5 from layer 3"),
    ],
)
def test_the_heading_says_what_a_method_keeps(
    options: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", "llava-1.5-7b", "-d", A100, *options.split()]) == 0
    assert says in capsys.readouterr().out.splitlines()[0]


def test_json_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "llava-1.5-7b", "-d", A100, "--json", "--output-tokens", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["totals"]["flops"] == 8_583_722_926_080 + 13_538_164_736
    assert list(document["stages"]) == ["vision", "projector", "reduction", "prefill", "decode"]
    assert document == json.loads(
        json.dumps(estimate("llava-1.5-7b", A100, output_tokens=1).to_dict())
    )


def test_sweep_writes_the_same_table_as_csv_and_parquet(tmp_path, capsys) -> None:
    import pandas as pd

    for name in ("table.csv", "table.parquet"):
        line = ["sweep", "llava-1.5-7b", "-d", f"{A100},nvidia-l4", "--visual-tokens", "0:576:64",
                "--precision", "fp16,int4", "--out", str(tmp_path / name)]  # fmt: skip
        assert main(line) == 0
    capsys.readouterr()
    csv, parquet = pd.read_csv(tmp_path / "table.csv"), pd.read_parquet(tmp_path / "table.parquet")
    assert len(csv) == len(parquet) == 2 * 2 * 10
    for column in ("visual_tokens", "flops", "time_s", "peak_memory_bytes"):
        assert csv[column].to_numpy() == pytest.approx(parquet[column].to_numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.parquet"]
