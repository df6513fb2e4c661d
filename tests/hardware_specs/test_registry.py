"""Looking devices up: by id, by file, by mistake."""

from __future__ import annotations

import contextlib
import copy
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardware_specs
from hardware_specs import (
    InvalidFileError,
    InvalidInputError,
    MissingPeakError,
    UnknownHardwareError,
    alias_note,
    get_hardware,
    list_hardware,
    load_hardware,
)
from hardware_specs.names import USUAL, plain_name

DATA = Path(hardware_specs.__file__).parent / "data"


def test_ids_are_the_file_names_and_sorted() -> None:
    files = {path.stem for path in DATA.glob("*.yaml")} - {"sources", "disagreements"}
    assert list_hardware() == tuple(sorted(files))
    assert all(get_hardware(hardware_id).id == hardware_id for hardware_id in list_hardware())


def test_a_device_is_read_once() -> None:
    assert get_hardware("nvidia-t4") is get_hardware("nvidia-t4")


def test_a_spec_stands_for_itself() -> None:
    spec = get_hardware("nvidia-t4")
    assert get_hardware(spec) is spec


def test_a_path_is_loaded(tmp_path) -> None:
    copied = shutil.copy(DATA / "nvidia-t4.yaml", tmp_path)
    assert get_hardware(str(copied)) == get_hardware(Path(copied)) == get_hardware("nvidia-t4")


@pytest.mark.parametrize(
    ("given_id", "near"),
    [
        ("nvidia-h100-sxm-80gb", "nvidia-h100-sxm5-80gb"),
        ("nvidia-a100-sxm-80gb", "nvidia-a100-sxm4-80gb"),
        ("mi300", "amd-mi300x"),
        ("nvidia-h100", "nvidia-h100-sxm5-80gb"),
        ("nvidia-l40", "nvidia-l40s"),
    ],
)
def test_an_unknown_id_names_near_ones(given_id, near) -> None:
    with pytest.raises(UnknownHardwareError) as raised:
        get_hardware(given_id)
    assert near in raised.value.near_matches
    assert near in str(raised.value)
    assert repr(given_id) in str(raised.value)


@pytest.mark.parametrize(
    "given_id",
    ["", "sources", "disagreements", "../data/nvidia-t4", "nvidia-t4/", "a" * 5000, "nvidia", None],
)
def test_what_is_no_id_is_unknown(given_id) -> None:
    with pytest.raises(UnknownHardwareError):
        get_hardware(given_id)


@given(st.text(max_size=40))
def test_any_text_is_a_device_or_an_error(text) -> None:
    with contextlib.suppress(UnknownHardwareError, InvalidFileError):
        spec = get_hardware(text)
        assert spec.id == text.lower() or spec.alias_note is not None


@pytest.mark.parametrize(
    ("alias", "taken", "others"),
    [
        ("h100", "nvidia-h100-sxm5-80gb", ("nvidia-h100-pcie-80gb", "nvidia-h100-nvl-94gb")),
        ("A100", "nvidia-a100-sxm4-80gb", ("nvidia-a100-sxm4-40gb",)),
        ("a100-40gb", "nvidia-a100-sxm4-40gb", ("nvidia-a100-pcie-40gb",)),
        ("v100", "nvidia-v100-sxm2-16gb", ("nvidia-v100-pcie-32gb",)),
        ("l40s", "nvidia-l40s", ()),
        ("4090", "nvidia-rtx-4090", ()),
        ("GeForce RTX 4090", "nvidia-rtx-4090", ()),
        ("MI300X", "amd-mi300x", ()),
        ("dgx-spark", "nvidia-dgx-spark-128gb", ()),
        ("orin-nano", "nvidia-jetson-orin-nano-8gb", ("nvidia-jetson-orin-nano-4gb",)),
    ],
)
def test_aliases_resolve_and_say_so(alias, taken, others) -> None:
    spec = get_hardware(alias)
    assert spec == get_hardware(taken)
    assert spec.alias_note == alias_note(alias)
    assert f"{alias!r} is taken as {taken}" in spec.alias_note
    assert all(other in spec.alias_note for other in others)


def test_every_alias_names_a_device_and_no_other_ones_id() -> None:
    ids = {plain_name(hardware_id): hardware_id for hardware_id in list_hardware()}
    assert len(ids) == len(list_hardware())
    for alias, hardware_id in USUAL.items():
        assert alias == plain_name(alias)
        assert hardware_id in list_hardware()
        assert ids.get(alias, hardware_id) == hardware_id


def test_case_makes_no_difference_to_an_id() -> None:
    assert get_hardware("NVIDIA-T4") is get_hardware("nvidia-t4")
    assert alias_note("NVIDIA-T4") is None


def test_default_peak_accumulates_in_32_bit() -> None:
    spec = get_hardware("nvidia-rtx-4090")
    assert spec.peak("fp16") == spec.peak("fp16", accumulator="acc32") == 165.2e12
    assert spec.peak("fp16", accumulator="acc16") == 330.3e12
    assert spec.peak("int8") == spec.peaks["int8.matrix"]
    assert spec.peak("fp32", engine="vector") == 82.6e12


def test_a_missing_peak_names_what_there_is() -> None:
    spec = get_hardware("nvidia-v100-sxm2-16gb")
    assert spec.peak_or_none("int8") is None
    with pytest.raises(MissingPeakError) as raised:
        spec.peak("int8")
    message = str(raised.value)
    assert "nvidia-v100-sxm2-16gb" in message
    assert "does not support int8.matrix" in message
    assert all(key in message for key in spec.peaks)


def test_a_peak_nobody_publishes_is_told_from_an_unsupported_one() -> None:
    with pytest.raises(MissingPeakError, match="no figure for it is known"):
        get_hardware("nvidia-a30").peak("fp16", accumulator="acc16")
    with pytest.raises(MissingPeakError, match="does not support fp16: no native"):
        get_hardware("google-tpu-v5e").peak("fp16")


@pytest.mark.parametrize(
    "arguments",
    [("fp12",), ("fp16", "tensor"), ("fp16", "matrix", "acc64"), ("fp16.matrix",), ("",)],
)
def test_a_path_that_does_not_exist_anywhere_is_a_mistake(arguments) -> None:
    with pytest.raises(InvalidInputError, match="there is: "):
        get_hardware("nvidia-t4").peak_or_none(*arguments)


def test_a_spec_cannot_be_changed_but_copied_and_pickled() -> None:
    spec = get_hardware("nvidia-l4")
    with pytest.raises(AttributeError):
        spec.tdp_w = 1
    with pytest.raises(TypeError):
        spec.peaks["fp16.matrix.acc32"] = 1
    for twin in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):  # noqa: S301 - own bytes
        assert twin == spec
        assert hash(twin) == hash(spec)
        assert twin.provenance == spec.provenance
    assert len({get_hardware(hardware_id) for hardware_id in list_hardware()}) == len(
        list_hardware()
    )


def test_a_spec_prints_in_a_line() -> None:
    for hardware_id in list_hardware():
        assert "\n" not in repr(get_hardware(hardware_id))
        assert len(repr(get_hardware(hardware_id))) < 400


def test_loading_reads_the_file_anew(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    text = "name: x\nvendor: v\narchitecture: a\nmemory: {bandwidth_bytes_per_s: 1.0e+12}\n"
    path.write_text(text + "peaks: {fp16.matrix.acc32: 1.0e+14}\n")
    assert load_hardware(path).peak("fp16") == 1e14
    path.write_text(text + "peaks: {fp16.matrix.acc32: 2.0e+14}\n")
    assert load_hardware(path).peak("fp16") == 2e14
