"""Device files of one's own: what they may hold, and how each mistake is answered."""

from __future__ import annotations

import contextlib
import doctest
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import hardware_specs
from hardware_specs import (
    HardwareSpec,
    InvalidFileError,
    InvalidInputError,
    get_hardware,
    list_hardware,
    load_hardware,
    save_hardware,
)
from hardware_specs.build import build_spec
from hardware_specs.document import device_document, spec_to_dict
from hardware_specs.errors import OutputError
from hardware_specs.files.reading import MAX_BYTES
from hardware_specs.files.strict_yaml import parse_yaml
from hardware_specs.schema import EVIDENCE_CODES, check_device

DATA = Path(hardware_specs.__file__).parent / "data"

MINIMAL = """\
name: My GPU
vendor: Me
architecture: One
memory:
  nominal_bytes: 17179869184
  bandwidth_bytes_per_s: 500.0e+9
peaks:
  fp16.matrix.acc32: {value: 100.0e+12, source: my_sheet, evidence: T}
  fp32.vector: 25.0e+12
sources:
  my_sheet: the data sheet of my GPU
"""


def load(tmp_path: Path, text: str, name: str = "mine.yaml") -> HardwareSpec:
    path = tmp_path / name
    path.write_text(text)
    return load_hardware(path)


def test_a_short_file_is_enough(tmp_path) -> None:
    spec = load(tmp_path, MINIMAL)
    assert spec.id == "mine"
    assert spec.peak("fp16") == 100e12
    assert spec.usable_memory_bytes == 16 * 2**30
    assert spec.provenance["fp16.matrix.acc32"].source == ("my_sheet",)
    assert spec.provenance["fp32.vector"].evidence == "user"
    assert spec.tdp_w is None
    assert spec.sm_count is None


@pytest.mark.parametrize("written", ["312e12", "3.12e14", "312_000_000_000_000", "312.0e+12"])
def test_numbers_as_people_write_them(tmp_path, written) -> None:
    assert load(tmp_path, MINIMAL.replace("100.0e+12", written)).peak("fp16") == 312e12


# (what is replaced, by what, what the message must say)
MISTAKES = {
    "duplicate key": ("name: My GPU", "name: My GPU\nname: Other", "line 2.*'name' appears twice"),
    "duplicate peak": ("  fp32.vector", "  fp16.matrix.acc32: 1.0e+12\n  fp32.vector", "twice"),
    "unknown key": ("name: My GPU", "name: My GPU\ntdp: 300", "tdp: extra inputs"),
    "unknown memory key": ("  nominal_bytes", "  size", "memory.size: extra inputs"),
    "negative number": ("500.0e+9", "-500.0e+9", "memory.bandwidth_bytes_per_s: .*greater than 0"),
    "zero": ("25.0e+12", "0", "greater than 0"),
    "not a number": ("25.0e+12", ".nan", "finite"),
    "infinite": ("25.0e+12", ".inf", "finite"),
    "a truth value": ("25.0e+12", "true", "valid number"),
    "text for a number": ("25.0e+12", "fast", "valid number"),
    "missing bandwidth": ("  bandwidth_bytes_per_s: 500.0e+9\n", "", "field required"),
    "missing peaks": (MINIMAL[MINIMAL.index("peaks") :], "", "peaks: field required"),
    "no peaks": (MINIMAL[MINIMAL.index("peaks") :], "peaks: {}", "at least 1"),
    "GB/s for B/s": ("500.0e+9", "500", "write it in B/s"),
    "TFLOP/s for FLOP/s": ("100.0e+12", "100", "peaks.fp16.matrix.acc32: .*write it in op/s"),
    "GB for B": ("17179869184", "16", "memory.nominal_bytes: .*write it in B"),
    "MHz for Hz": ("memory:", "boost_hz: 1410\nmemory:", "boost_hz: .*write it in Hz"),
    "unknown dtype": ("fp32.vector", "fp12.vector", "unknown dtype 'fp12'; there is: fp64"),
    "unknown engine": ("fp32.vector", "fp32.tensor", "unknown engine 'tensor'"),
    "no engine": ("fp32.vector", "fp32", "unknown engine ''"),
    "unknown accumulator": ("acc32", "acc64", "acc16 or acc32"),
    "accumulator of a vector": ("fp32.vector", "fp32.vector.acc32", "only matrix peaks"),
    "dot at the end": ("fp32.vector", "fp32.vector.", "ends in a dot"),
    "unknown source": ("source: my_sheet", "source: my_shet", "unknown source 'my_shet'"),
    "unknown evidence": ("evidence: T", "evidence: X", "peaks.fp16.matrix.acc32.evidence"),
    "unsupported what": ("sources:", "unsupported: [fp9]\nsources:", "unsupported: 'fp9'"),
    "unknown link": ("sources:", "interconnect: {absent: [usb]}\nsources:", "'usb' is no link"),
    "more shown than there is": (
        "  nominal_bytes",
        "  reported_bytes: 17179869999\n  nominal_bytes",
        "never shows more",
    ),
    "another id": ("name: My GPU", "name: My GPU\nid: yours", "'yours' must be the file's name"),
    "fractional units": ("memory:", "sm_count: 1.5\nmemory:", "sm_count"),
    "a list": (MINIMAL, "- 1\n- 2\n", "the file: .*dictionary"),
    "nothing": (MINIMAL, "", "the file: .*dictionary"),
    "no YAML": ("memory:", "memory: [", "line"),
    "a tag": ("My GPU", "!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "a key that is no text": ("name: My GPU", "name: My GPU\n3: x", "3 is no text"),
    "a merge key": ("name: My GPU", "name: My GPU\n<<: {a: 1}", "could not determine"),
    "no such date": ("name: My GPU", "name: 2024-13-45", "no valid YAML"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(tmp_path, mistake) -> None:
    old, new, message = MISTAKES[mistake]
    assert old in MINIMAL
    with pytest.raises(InvalidFileError, match=message) as raised:
        load(tmp_path, MINIMAL.replace(old, new, 1))
    assert str(raised.value).startswith(str(tmp_path / "mine.yaml"))


def test_many_mistakes_are_told_together_and_not_endlessly(tmp_path) -> None:
    peaks = "".join(f"  fp{n}.matrix: 1.0e+12\n" for n in range(100, 120))
    with pytest.raises(InvalidFileError, match=r"and 14 more$") as raised:
        load(tmp_path, MINIMAL.replace("peaks:\n", "peaks:\n" + peaks))
    assert len(str(raised.value)) < 2000


def test_no_file_and_no_text(tmp_path) -> None:
    with pytest.raises(InvalidFileError, match="no such file"):
        load_hardware(tmp_path / "absent.yaml")
    with pytest.raises(InvalidFileError, match="folder"):
        load_hardware(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(os.urandom(2000) + b"\xff\xfe\x00")
    with pytest.raises(InvalidFileError):
        load_hardware(tmp_path / "binary.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_BYTES["device file"] + 1))
    with pytest.raises(InvalidFileError, match="larger than"):
        load_hardware(tmp_path / "huge.yaml")


def test_a_bomb_of_references_stays_small(tmp_path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(InvalidFileError, match=r"reference \*a0: write the value out"):
        load(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("opening", ["[", "- ", "? ", "{a: "])
def test_deep_nesting_is_refused(tmp_path, opening) -> None:
    with pytest.raises(InvalidFileError):
        load(tmp_path, opening * 200_000)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["value", "source", "evidence", "note", "x"]), inner)
    ),
    max_leaves=6,
)
document = st.dictionaries(
    st.sampled_from([*yaml.safe_load(MINIMAL), "sm_count", "interconnect", "unsupported"]),
    plain,
)


@given(document)
@settings(max_examples=300)
def test_any_document_is_a_device_or_an_error(changes) -> None:
    try:
        spec = build_spec(check_device(yaml.safe_load(MINIMAL) | changes), hardware_id="mine")
    except InvalidFileError:
        return
    assert spec.bandwidth_bytes_per_s > 0
    assert all(value > 0 for value in spec.peaks.values())


@given(st.text(max_size=200) | st.binary(max_size=200))
@settings(max_examples=300)
def test_any_text_is_data_or_an_error(content) -> None:
    with contextlib.suppress(InvalidFileError):
        parse_yaml(content)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_read_alike_by_any_reader(path) -> None:
    # Numbers are written so that the plain loader reads them as numbers, too.
    ours, plain_reading = parse_yaml(path.read_bytes()), yaml.safe_load(path.read_text())
    assert ours == plain_reading
    for key, peak in plain_reading.get("peaks", {}).items():
        assert isinstance(peak["value"], float), key


@pytest.mark.parametrize("hardware_id", list_hardware())
def test_a_saved_device_is_the_same_device(tmp_path, hardware_id) -> None:
    spec = get_hardware(hardware_id)
    save_hardware(spec, tmp_path / f"{hardware_id}.yaml")
    assert load_hardware(tmp_path / f"{hardware_id}.yaml") == spec
    assert [path.name for path in tmp_path.iterdir()] == [f"{hardware_id}.yaml"]
    assert device_document(spec)["peaks"].keys() == spec_to_dict(spec)["peaks"].keys()


def test_a_device_is_saved_under_its_id_or_not_at_all(tmp_path) -> None:
    spec = get_hardware("nvidia-t4")
    with pytest.raises(InvalidInputError, match=r"nvidia-t4\.yaml"):
        save_hardware(spec, tmp_path / "other.yaml")
    with pytest.raises(OutputError, match="cannot write"):
        save_hardware(spec, tmp_path / "absent" / "nvidia-t4.yaml")
    (tmp_path / "nvidia-t4.yaml").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save_hardware(spec, tmp_path / "nvidia-t4.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["nvidia-t4.yaml"]


def test_the_documented_example_is_a_device(tmp_path) -> None:
    text = (Path(hardware_specs.__file__).parents[1] / "docs" / "hardware.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    spec = load(tmp_path, example)
    assert spec.peak("fp16") == 100e12
    assert spec.peak("fp32", "vector") == 25e12


def test_the_documented_codes_are_all_codes() -> None:
    text = (Path(hardware_specs.__file__).parents[1] / "docs" / "hardware.md").read_text()
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert documented - {"…+A"} == {code for code in EVIDENCE_CODES if "+" not in code}


def test_the_documented_look_up_is_real() -> None:
    path = Path(hardware_specs.__file__).parents[1] / "docs" / "hardware.md"
    outcome = doctest.testfile(str(path), module_relative=False)
    assert outcome.attempted >= 4
    assert outcome.failed == 0
