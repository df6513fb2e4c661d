"""Measured cells below what their work allows are impossible; the others have a reason."""

from __future__ import annotations

import pytest

from costmodel.audits import audit
from costmodel.audits.floors import devices_named

HEAD = "# hardware: {}\nmethod,model,visual_full,schedule,quantity,unit,printed\n"


def floor(said, *rows, **options):
    lines = "".join(f"{row},llava-1.5-7b,576,{rest}\n" for row, rest in rows)
    return audit(HEAD.format(said) + lines, copies=0, **options)


def test_a_latency_below_the_floor_of_its_own_flops():
    rows = [("V", "0:V,prefill_flops,T,8.0"), ("V", "0:V,prefill_time,ms,58.1")]
    (found,) = floor("Tesla V100", *rows).impossible
    # 7.95 TFLOP at 125 TFLOP/s
    assert found["floor"] == pytest.approx(63.6)
    assert found["floor_s"] == pytest.approx(0.0636)
    assert floor("Tesla V100", rows[0], ("V", "0:V,prefill_time,ms,63.7")).impossible == ()


def test_without_printed_flops_the_model_s_own_work_counts():
    # 576 tokens: 2 x 32 x (576 x 202.4 M + 4096 x 576^2) + 2 x 4096 x 32064 = 7.55 TFLOP
    (found,) = floor("A100", ("V", "0:V,ttft,ms,20.0")).impossible
    assert found["floor"] == pytest.approx(7.548e12 / 312e12 * 1e3, rel=1e-3)
    # 16 tokens are bound by 13.2 GB of weights at 2.039 TB/s.
    (found,) = floor("A100 80GB", ("Z", "0:16,ttft,ms,5.0")).impossible
    assert found["floor"] == pytest.approx(13.215e9 / 2.039e12 * 1e3, rel=1e-3)
    assert found["bound"] == "memory"


def test_rates_and_memory():
    rows = [
        ("a", "0:V,throughput,samples/s,50"),
        ("b", "0:V,throughput,tokens/s,200"),
        ("c", "0:V,memory,GB,9.1"),
        ("d", "0:V,memory,GB,95"),
        ("e", "0:V,memory,GB,15.2"),
    ]
    found = floor("A100 80GB", *rows)
    assert [each["row"] for each in found.impossible] == ["a", "b", "c", "d"]
    assert found.impossible[0]["floor"] == pytest.approx(312e12 / 7.548e12, rel=1e-3)
    assert found.impossible[1]["floor"] == pytest.approx(2.039e12 / 13.215e9, rel=1e-3)


def test_what_holds_a_cell_above_its_floor():
    rows = [
        ("V", "0:V,prefill_time,ms,50"),
        ("Slow", "0:64,prefill_time,ms,95"),
        ("Fast", "0:64,prefill_time,ms,30"),
        ("All", "0:V,latency,ms,2000"),
    ]
    found = {each["row"]: each for each in floor("A100 80GB", *rows).measured}
    assert found["Slow"]["why"] == "method"
    assert found["Fast"]["why"] == "host"
    assert found["All"]["why"] == "decode"
    assert found["V"]["why"] == "device"
    assert found["V"]["times_floor"] == pytest.approx(50 / 24.2, rel=0.01)
    assert "2.1 times its floor, device-bound" in found["V"]["text"]


def test_a_device_must_be_named():
    found = floor("none", ("V", "0:V,ttft,ms,1.0"))
    assert found.impossible == ()
    assert any("--hardware" in remark for remark in found.remarks)
    assert floor("none", ("V", "0:V,ttft,ms,1.0"), hardware="nvidia-l4").impossible


@pytest.mark.parametrize(
    ("text", "first"),
    [("RTX 4090D", "nvidia-rtx-4090"), ("one H100 80GB", "nvidia-h100-pcie-80gb"),
     ("L40S", "nvidia-l40s"), ("nvidia-l4", "nvidia-l4"), ("8 GPUs of 80 GB", None)],
)  # fmt: skip
def test_names_of_devices(text, first):
    assert next(iter(devices_named(text)), None) == first


def test_several_devices_and_a_token_s_time():
    rows = [("V", "0:V,ttft,ms,10.0"), ("T", "0:V,tpot,ms,5.0")]
    assert [each["row"] for each in floor("A100 80GB", *rows).impossible] == ["V", "T"]
    assert floor("8 x A100 80GB", *rows).impossible == ()
    assert floor("8 NVIDIA A100 80GB", *rows).impossible == ()


def test_a_model_that_is_a_bare_shape():
    text = HEAD.format("A100") + "V,longva-7b,144,0:V,prefill_time,ms,{}\n"
    assert audit(text.format("9"), copies=0).measured[0]["why"] == "device"
    assert audit(text.format("5"), copies=0).impossible
