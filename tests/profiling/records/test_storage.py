"""Records on disk: whole or absent, readable in every version, damaged ones named and passed over."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_specs.errors import InvalidFileError, InvalidInputError
from hardware_specs.files.reading import DamagedFileWarning
from profiling.records.frame import load_measurements
from profiling.records.measurement import (
    RANKS_VERSION,
    SCHEMA_VERSION,
    TOTAL,
    Configuration,
    Measurement,
    Ranks,
    RankSamples,
    Sampling,
    StageSamples,
    TokenCounts,
)
from profiling.records.readings import DeviceState, EnergyWindow
from profiling.records.storage import (
    pack_measurements,
    parse_measurement,
    read_measurement,
    read_measurements,
    write_measurement,
)

if TYPE_CHECKING:
    from pathlib import Path


def _record(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "configuration": Configuration("llava-1.5-7b", "bf16", visual_tokens=64, output_tokens=2),
        "status": "ok",
        "sampling": Sampling("cuda-event", 1.5, (0.02, 0.01), True, "noise-stable", 0.02, (), 2),
        "stages": {
            "prefill": StageSamples(event_s=(0.01, 0.011), enqueue_s=(0.008,), flops=12, kernels=3),
            "decode": StageSamples(event_s=(0.004,), step_event_s=((0.002, 0.0021),)),
            TOTAL: StageSamples(event_s=(0.02, 0.021), wall_s=(0.022,), peak_allocated_bytes=7),
        },
        "tokens": TokenCounts(576, 64, 40, 1, (104, 104)),
        "device_state": DeviceState(sm_clock_hz=(1980000000,), throttle_reasons=("sw-power-cap",)),
        "energy": (EnergyWindow("prefill", "nvml_counter", 3.5, 3.5, None, 350.0, 90.0, 1.5, 100,
                                (349.0, 351.0), (0.0, 0.1), {"integral_j": "few"}),),
        "environment": {"device_name": "NVIDIA H200", "torch": "2.13.0", "variables": {"A": "1"}},
        "capabilities": {"energy": "available"},
        "why_missing": {"flops": "counted apart"},
        "round": 1,
        "position": 4,
        "started_at": "2026-11-20T12:00:00+00:00",
    }  # fmt: skip
    return Measurement(**{**values, **changes})


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = _record()
    path = write_measurement(record, tmp_path)
    assert path.name == record.file_name
    assert read_measurement(path) == record
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION
    assert list(tmp_path.iterdir()) == [path]


def _shared() -> Measurement:
    record = _record(schema_version=RANKS_VERSION)
    members = tuple(RankSamples(record.stages, "a CPU", parameters=7) for _ in range(2))
    return dataclasses.replace(
        record,
        configuration=dataclasses.replace(record.configuration, tp=2),
        ranks=Ranks("gloo", {"all_reduce": 12}, members),
    )


def test_a_record_of_several_processes_survives_its_file(tmp_path: Path) -> None:
    record = _shared()
    document = json.loads(write_measurement(record, tmp_path).read_text())
    assert read_measurements(tmp_path) == [record]
    assert document["schema_version"] == 3
    assert [member["parameters"] for member in document["ranks"]["members"]] == [7, 7]
    # That of one process is what it was: readers of version 2 know all its keys.
    alone = _record().to_dict()
    assert alone["schema_version"] == 2
    assert "ranks" not in alone
    assert "tp" not in alone["configuration"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("ranks"), "ranks is missing"),
        (lambda d: d.update(schema_version=2), "schema_version is 2 and tp 2, yet ranks is there"),
        (lambda d: d["configuration"].pop("tp"), "tp 1, yet ranks is there"),
        (lambda d: d["ranks"]["members"].pop(), "ranks has 1 members, yet tp is 2"),
        (lambda d: d["ranks"]["members"][1]["stages"].pop("prefill"), "has 0 samples of prefill"),
        (lambda d: d["ranks"]["collective_bytes"].update(all_reduce=-1), "must be at least 0"),
        (lambda d: d["ranks"].update(speed=1), "ranks.speed"),
    ],
)
def test_a_record_whose_processes_do_not_fit_is_refused(change: Any, words: str) -> None:
    document = _shared().to_dict()
    change(document)
    with pytest.raises(InvalidFileError, match=words):
        parse_measurement(json.dumps(document))


@given(
    st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=5),
    st.one_of(st.none(), st.integers(1, 10**6), st.floats(0.001, 1.0)),
    st.one_of(st.none(), st.integers(0, 10**15)),
)
def test_any_numbers_survive(samples: list[float], keep: Any, peak: int | None) -> None:
    record = _record(
        configuration=Configuration("m", "fp16", method="divprune", keep=keep),
        stages={TOTAL: StageSamples(event_s=tuple(samples), peak_allocated_bytes=peak)},
    )
    text = json.dumps(record.to_dict(), allow_nan=False)
    again = parse_measurement(text)
    assert again == record
    assert type(again.configuration.keep) is type(keep)


def test_a_record_cannot_be_changed() -> None:
    record = _record()
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.status = "failed"  # type: ignore[misc]
    with pytest.raises(TypeError):
        record.stages["vision"] = StageSamples()  # type: ignore[index]


def test_derived_figures() -> None:
    record = _record()
    assert record.ttft_s == pytest.approx(0.0205)
    assert record.tpot_s == pytest.approx(0.00205)
    assert _record(stages={}).ttft_s is None
    assert _record(stages={}).tpot_s is None
    assert record.stages["prefill"].host_bound is False


def test_keys_tell_configurations_apart_and_are_file_names() -> None:
    base = Configuration("models/llava@layers=2,width=1/4", "bf16")
    others = [
        dataclasses.replace(base, **{name: value})
        for name, value in {
            "dtype": "fp16", "method": "fastv", "keep": 0.5, "visual_tokens": 1, "text_tokens": 41,
            "batch_size": 2, "output_tokens": 1, "mode": "compile", "device": "cpu",
            "attention": "eager", "cache": "cold", "model": "other/llava@layers=2,width=1/4",
        }.items()
    ]  # fmt: skip
    keys = {item.key for item in (base, *others)}
    assert len(keys) == len(others) + 1
    assert all("/" not in key and len(key) < 120 for key in keys)
    assert base.key.startswith("llava-layers-2-width-1-4_bf16")


@pytest.mark.parametrize(
    "values",
    [{"batch_size": 0}, {"text_tokens": 0}, {"output_tokens": -1}, {"visual_tokens": -1},
     {"mode": "fast"}, {"cache": "lukewarm"}, {"batch_size": True}, {"batch_size": 1.5},
     {"visual_tokens": 64.5}, {"visual_tokens": "64"}, {"images": 0}],
)  # fmt: skip
def test_impossible_configurations_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(values))):
        Configuration("llava-1.5-7b", "bf16", **values)


GOOD = {
    "schema_version": SCHEMA_VERSION,
    "configuration": {"model": "llava-1.5-7b", "dtype": "bf16", "visual_tokens": 64},
    "status": "ok",
    "sampling": {"timer": "cuda-event"},
    "stages": {"total": {"event_s": [0.02, 0.021]}},
}


def test_what_may_be_left_out_of_a_record() -> None:
    record = parse_measurement(json.dumps(GOOD))
    assert record.stages["total"].event_s == (0.02, 0.021)
    assert record.stages["total"].peak_allocated_bytes is None


DAMAGE = {
    "empty": "",
    "cut off": json.dumps(GOOD)[:100],
    "not a record": "[1, 2]",
    "no version": "{}",
    "newer": json.dumps({**GOOD, "schema_version": RANKS_VERSION + 1}),
    "older": json.dumps({**GOOD, "schema_version": SCHEMA_VERSION - 1}),
    "odd version": json.dumps({**GOOD, "schema_version": "two"}),
    "no status": json.dumps({k: v for k, v in GOOD.items() if k != "status"}),
    "text for a time": json.dumps({**GOOD, "stages": {"total": {"event_s": ["fast"]}}}),
    "NaN": json.dumps(GOOD).replace("0.021", "NaN"),
    "a key twice": json.dumps(GOOD)[:-1] + ', "status": "failed"}',
    "deep": "[" * 100_000,
    "many digits": json.dumps(GOOD).replace("0.021", "9" * 5000),
    "bad status": json.dumps({**GOOD, "status": "fine"}),
    "bad configuration": json.dumps(
        {**GOOD, "configuration": {"model": "m", "dtype": "d", "batch_size": 0}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(DAMAGE[damage])
    with pytest.raises(InvalidFileError, match=r"broken\.json"):
        read_measurement(path)


def test_damaged_files_are_named_and_passed_over(tmp_path: Path) -> None:
    good = _record()
    write_measurement(good, tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.json").write_text('{"kind": "ops", "rows": []}')
    with pytest.warns(DamagedFileWarning) as caught:
        records = read_measurements(tmp_path)
    assert records == [good]
    assert sorted(str(item.message).split(":")[0] for item in caught) == [
        f"skipped {tmp_path / 'bad.json'}", f"skipped {tmp_path / 'bytes.json'}",
    ]  # fmt: skip


def test_a_pack_holds_many_records_and_loses_only_damaged_lines(tmp_path: Path) -> None:
    records = [_record(round=index) for index in range(3)]
    path = pack_measurements(records, tmp_path / "campaign.jsonl")
    assert read_measurements(path) == records
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:50], "", lines[2]]))
    with pytest.warns(DamagedFileWarning, match="line 2"):
        assert read_measurements(tmp_path) == [records[0], records[2]]


def test_a_missing_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such folder"):
        read_measurements(tmp_path / "nowhere")


def test_the_table_is_tidy(tmp_path: Path) -> None:
    write_measurement(_record(), tmp_path)
    lost = _record(
        status="out-of-memory", stages={}, error="OutOfMemoryError: x", round=0, energy=()
    )
    write_measurement(lost, tmp_path)
    frame = load_measurements(tmp_path)
    assert len(frame) == 4
    assert frame.loc[frame["stage"] == "prefill", "median_s"].item() == pytest.approx(0.0105)
    assert frame.loc[frame["stage"] == "prefill", "energy_j"].item() == 3.5
    assert frame.loc[frame["stage"] == "decode", "step_s"].item() == pytest.approx(0.00205)
    out = frame[frame["status"] == "out-of-memory"]
    assert len(out) == 1
    assert out["stage"].isna().all()
    assert out["median_s"].isna().all()
    samples = load_measurements(tmp_path, samples=True)
    assert len(samples) == 5
    assert sorted(samples.loc[samples["stage"] == TOTAL, "event_s"]) == [0.02, 0.021]


def _changed(path: str, value: Any) -> str:
    """The good record with one place changed; a path of names and indices with dots between."""
    document = json.loads(json.dumps(_record().to_dict()))
    *parents, last = path.split(".")
    home: Any = document
    for name in parents:
        home = home[int(name) if name.isdigit() else name]
    home[int(last) if last.isdigit() else last] = value
    return json.dumps(document)


IMPOSSIBLE = {
    "evnet_s": 1, "configuration.batch": 2, "stages.total.evnet_s": [1.0], "sampling.clock": "x",
    "stages.total.event_s.0": 0.0, "stages.total.event_s.1": -0.02, "stages.total": {},
    "stages.decode.step_event_s.0.1": 1e300, "stages.prefill.flops": -1, "stages.prefill.kernels": -3,
    "stages.total.peak_allocated_bytes": 10**30, "stages.verify": {"event_s": [1.0]}, "status": "failed",
    "tokens.visual_llm": -5, "energy.0.energy_j": -1.0, "energy.0.stage": "all", "round": -1,
    "sampling.warm_up_s.0": 0.0, "device_state.foreign_processes": -1, "kind": "ops",
    "environment.device_memory_bytes": "much", "environment.device_name": ["A100"],
    "environment.sm_count": -1,
}  # fmt: skip


@pytest.mark.parametrize("path", IMPOSSIBLE)
def test_what_cannot_be_is_refused_by_name(path: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(_changed(path, IMPOSSIBLE[path]))
    word = path.split(".")[-1] if not path[-1].isdigit() else path
    with pytest.warns(DamagedFileWarning, match=rf"odd\.json.*{word}"):
        assert read_measurements(tmp_path) == []


def test_an_unknown_key_is_named_with_the_version() -> None:
    with pytest.raises(InvalidFileError, match=r"stages\.total\.evnet_s: schema_version 2 has no"):
        parse_measurement(_changed("stages.total.evnet_s", [1.0]))


def test_a_run_without_its_total_says_what_the_clock_held() -> None:
    document = _record().to_dict()
    del document["stages"]["total"], document["stages"]["decode"]
    with pytest.raises(InvalidFileError, match=r"total.*boundary"):
        parse_measurement(json.dumps(document))
    document["boundary"] = "prefill of the language model, host time included"
    assert list(parse_measurement(json.dumps(document)).stages) == ["prefill"]
    document["stages"]["prefill"]["event_s"] = []
    with pytest.raises(InvalidFileError, match="no stage has samples"):
        parse_measurement(json.dumps(document))


@pytest.mark.parametrize("how", ["copy", "link", "pack", "subfolder"])
def test_doubles_are_named_and_counted_once(how: str, tmp_path: Path) -> None:
    records = [_record(), _record(round=0), _record(status="out-of-memory", stages={}, round=2)]
    paths = [write_measurement(each, tmp_path) for each in records]
    if how == "copy":
        (tmp_path / "z.json").write_text(json.dumps(json.loads(paths[0].read_text())))
    elif how == "link":
        (tmp_path / "z.json").symlink_to(paths[0])
    elif how == "pack":
        pack_measurements(records, tmp_path / "z.jsonl")
    else:
        (tmp_path / "z").mkdir()
        write_measurement(records[2], tmp_path / "z")
    with pytest.warns(DamagedFileWarning, match=r"[/z]z.*double.*counted once") as caught:
        assert len(read_measurements(tmp_path)) == 3
    assert len(caught) == 1


def test_folders_given_twice_count_once(tmp_path: Path) -> None:
    from profiling.reconciling.reading import read

    write_measurement(_record(), tmp_path)
    with pytest.warns(DamagedFileWarning, match="double"):
        assert len(read([tmp_path, str(tmp_path)])) == 1


def test_many_damaged_lines_are_named_in_few_words(tmp_path: Path) -> None:
    (tmp_path / "pretty.jsonl").write_text(json.dumps(_record().to_dict(), indent=1))
    with pytest.warns(DamagedFileWarning) as caught:
        assert read_measurements(tmp_path) == []
    assert len(caught) == 4
    assert "more damaged lines" in str(caught[-1].message)
