"""The command `explain`: text, JSON, page, picture, table of ops; errors are one line."""

from __future__ import annotations

import gzip
import json
import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from public_traces import TRACES

from costmodel.calibration import Calibration
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VIT = str(TRACES["h100_vit_b16"])
QWEN = str(TRACES["h100_qwen1.5_0.5b"])
#: Qwen1.5-0.5B as far as the cost model has its kind: without the bias of its first products.
QWEN_CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024,
    "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
    "num_key_value_heads": 16, "vocab_size": 151936, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
}  # fmt: skip


@pytest.fixture
def qwen(tmp_path: Path) -> str:
    folder = tmp_path / "alice-secret" / "qwen"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(QWEN_CONFIG))
    return str(folder)


def _document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["explain", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_text_names_classes_kernels_gaps_and_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["explain", QWEN]) == 0
    out = capsys.readouterr().out
    for words in ("24 layers of 1024, 559 tokens", "FlashAttention-2", "linked to no op, by kernel",
                  "waiting for the host", "8944x2816x1024", "CUTLASS, unaligned",
                  "509 of them launched before the trace began"):  # fmt: skip
        assert words in out
    assert out.rstrip().endswith("most of it is gemm (19%).")


def test_the_document_has_what_the_design_says(capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(capsys, VIT)
    assert document["schema_version"] == 1
    parts = [document[f"{name}_time_s"] for name in ("attributed", "unattributed", "copies")]
    assert sum(parts) == pytest.approx(document["kernel_time_s"], rel=1e-3)
    assert {"idle_s", "layers", "stages", "classes", "sentence"} <= set(document)
    (layers,) = document["layers"]
    assert {"count": 12, "width": 768, "tokens": 197}.items() <= layers.items()
    assert 0 < layers["time_s"] < document["kernel_time_s"]
    assert list(document["stages"]) == ["vision"]
    assert document["hardware"] == "nvidia-h100-sxm5-80gb"
    first = document["ops"][0]
    # 48 products of 788 x 768 x 768: 2 m n k FLOPs each.
    assert (first["calls"], first["flops"]) == (48, 48 * 2 * 788 * 768 * 768)
    assert first["ideal_s"] < first["predicted_s"] < first["time_s"]


def test_no_calibration_is_the_roofline_and_an_unknown_device_has_no_roofs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = _document(capsys, VIT, "--calibration", "none")
    assert document["calibration"] is None
    assert {op["predicted_s"] for op in document["ops"]} == {None}
    document = _document(capsys, str(TRACES["mi300x_vllm_decode"]))
    assert document["hardware"] is None
    assert "name the device" in " ".join(document["notes"])
    document = _document(capsys, str(TRACES["mi300x_vllm_decode"]), "-d", "mi300x")
    assert document["hardware"] == "amd-mi300x"
    document = _document(capsys, VIT, "-d", "l4")
    assert "not nvidia-l4" in " ".join(document["notes"])


def test_the_estimate_stands_beside_the_trace(
    capsys: pytest.CaptureFixture[str], qwen: str
) -> None:
    document = _document(capsys, QWEN, "--model", qwen)
    beside = document["model"]
    assert (beside["text_tokens"], beside["visual_tokens"], beside["batch_size"]) == (559, 0, 16)
    assert beside["flags"] == []
    prefill = beside["stages"]["prefill"]
    # The stretch of the time line is the stage's work and the gaps in it.
    assert prefill["device_s"] == pytest.approx(document["stages"]["prefill"])
    assert prefill["device_s"] <= prefill["measured_s"] <= document["span_s"]
    named = set(prefill) - {"measured_s", "device_s", "predicted_s", "ideal_s"}
    parts = sum(prefill[name] for name in named)
    assert parts + prefill["ideal_s"] == pytest.approx(prefill["measured_s"])
    assert "alice-secret" not in json.dumps(document)
    assert main(["explain", QWEN, "--model", "llava-1.5-7b"]) == 0
    assert "24 layers of 1024, llava-1.5-7b has 32 of 4096" in capsys.readouterr().out


def test_a_tower_alone_stands_beside_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    beside = _document(capsys, VIT, "--model", "llava-1.5-7b")["model"]
    assert list(beside["stages"]) == ["vision"]
    assert beside["batch_size"] == 4
    assert beside["flags"] == ["the trace's tower is 768 wide, that of llava-1.5-7b 1024"]


def test_page_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str], qwen: str) -> None:
    folder = tmp_path / "alice-secret"
    shutil.copy(QWEN, folder / "run.json.gz")
    page, picture = tmp_path / "why.html", tmp_path / "roof.svg"
    arguments = ["--model", qwen, "--out", str(page), "--plot", str(picture)]
    assert main(["explain", str(folder / "run.json.gz"), *arguments]) == 0
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert "alice-secret" not in text
    for words in ("Explained: run.json.gz", "24 layers of 1024", "FlashAttention-2", "data:image/svg",
                  "Beside the estimate of"):  # fmt: skip
        assert words in text
    assert "<svg" in picture.read_text()


def test_ops_go_to_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace has few sizes: its table joins others, and alone is refused with what is missing."""
    table = tmp_path / "ops.parquet"
    assert main(["explain", QWEN, "--calibrate", str(table)]) == 0
    assert "5 ops for `calibrate`" in capsys.readouterr().out
    frame = pd.read_parquet(table)
    largest = frame[(frame["m"] == 8944) & (frame["k"] == 2816)].iloc[0]
    # The trace has 24 of them, 1.835 ms in all.
    assert (largest["samples"], largest["n"]) == (24, 1024)
    assert 24 * largest["time_s"] == pytest.approx(1.835e-3, rel=0.01)
    out = tmp_path / "law.json"
    words = ["calibrate", str(table), "--hardware", "h100", "--out", str(out)]
    assert main(words) == 2
    assert "gemm in bf16: 3 usable points are too few" in capsys.readouterr().err
    law = Calibration.load("nvidia-h100-sxm5-80gb")
    rows = [
        {"op_class": "gemm", "dtype": "bf16", "m": m, "n": n, "k": 4096,
         "time_s": float(law.op_time_s("gemm", dtype="bf16", m=m, n=n, k=4096))}
        for m in (1, 16, 64, 96, 128, 256, 576, 1000, 2048) for n in (512, 1024, 4096, 11008)
    ]  # fmt: skip
    others = tmp_path / "others.csv"
    pd.DataFrame(rows).to_csv(others, index=False)
    assert main([*words[:2], str(others), *words[2:]]) == 0
    assert Calibration.load(out).lookup("gemm", "bf16").measured


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no.json"], "there is no such file"),
        (["cut.json"], "cut short"),
        (["empty.json"], "no op and no kernel"),
        (["text.json"], "no Chrome trace"),
        ([VIT, "--out", "x.pdf"], "must end in .html"),
        ([VIT, "--calibrate", "x.csv", "--plot", "x.bmp"], "must end in .png, .svg or .pdf"),
        ([VIT, "--calibrate", "x.xlsx"], "must end in .parquet or .csv"),
        ([VIT, "--model", "no-such"], "unknown model"),
        (
            [VIT, "--visual-tokens", "5"],
            "--visual-tokens is for the estimate beside the trace",
        ),
        ([VIT, "-d", "z80"], "z80"),
        ([str(TRACES["mi300x_vllm_decode"]), "--model", "llava-1.5-7b"], "name it with hardware="),
        ([str(TRACES["mi300x_vllm_decode"]), "--plot", "x.png"], "can be placed"),
        (
            [str(TRACES["mi300x_sglang_qwen3_8b_decode"]), "--calibrate", "x.csv"],
            "record_shapes=True",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = gzip.decompress(TRACES["h100_vit_b16"].read_bytes())
    (tmp_path / "cut.json").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.json").write_text('{"traceEvents": []}')
    (tmp_path / "text.json").write_text("hello")
    assert word in refused("explain", *arguments)
    assert not list(tmp_path.glob("x.*"))


def test_a_trace_whose_ops_took_no_time_has_a_page_without_a_roofline(tmp_path: Path) -> None:
    document = json.loads(gzip.decompress(TRACES["h100_bert_small"].read_bytes()))
    events = [each | {"dur": 0} if "dur" in each else each for each in document["traceEvents"]]
    trace, out = tmp_path / "still.json", tmp_path / "still.html"
    trace.write_text(json.dumps(document | {"traceEvents": events}))
    assert main(["explain", str(trace), "--out", str(out)]) == 0
    assert "Under the roof" not in out.read_text(encoding="utf-8")
