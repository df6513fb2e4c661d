from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from costmodel import estimate
from hardware_specs import get_hardware
from hardware_specs.errors import CalibrationError, InvalidInputError
from profiling import reconcile
from profiling.reconciling.devices import device_of
from profiling.reconciling.gap import PARTS
from profiling.reconciling.rows import COLUMNS
from profiling.records.measurement import (
    COMMUNICATION,
    DECODE_COMMUNICATION,
    TOTAL,
    Measurement,
    Ranks,
    RankSamples,
    Sampling,
    StageSamples,
    TokenCounts,
)


def only(result, stage):
    (row,) = result.of_stage(stage)
    return row


def test_a_known_law_is_decomposed_exactly(lab):
    """Every op at half the peak and a quarter of the bandwidth: efficiency parts are 1 x and 3 x."""
    law = lab.law_of(compute=0.5, memory=0.25)
    record = lab.measured(lab.configuration(mode="compile", visual_tokens=64), calibration=law)
    result = reconcile([record], law)
    from costmodel import estimate

    ideal = estimate(
        "llava-1.5-7b", lab.A100, visual_tokens=64, precision="bf16", calibration="none"
    ).stages["prefill"]
    row = only(result, "prefill")
    assert row["ideal_s"] == pytest.approx(ideal.time_s)
    # Compute-bound ops at the datasheet may be memory-bound at a quarter of the bandwidth.
    assert row["efficiency_memory_s"] == pytest.approx(3 * ideal.memory_s, rel=1e-6)
    assert row["efficiency_compute_s"] >= ideal.compute_s
    assert row["granularity_s"] == pytest.approx(0.0, abs=1e-12)  # compile runs the fused plan
    assert row["host_s"] == 0.0
    assert row["unexplained_s"] == pytest.approx(0.0, abs=1e-12)
    assert row["predicted_s"] == pytest.approx(row["measured_s"])


def test_efficiency_alone_scales_the_ideal(lab):
    law = lab.law_of(compute=0.5, memory=0.5)
    record = lab.measured(lab.configuration(mode="compile"), calibration=law)
    for stage in ("vision", "prefill"):
        row = only(reconcile([record], law), stage)
        parts = row["efficiency_compute_s"] + row["efficiency_memory_s"]
        # Attention's softmax is vector work that the law does not slow down: under 1 %.
        assert parts == pytest.approx(row["ideal_s"], rel=0.01) or stage == "vision"


def test_the_plan_that_ran_decides_the_granularity(lab):
    law = lab.law_of()
    rows = {}
    for mode in ("eager", "cuda-graph", "compile"):
        record = lab.measured(lab.configuration(mode=mode), calibration=law)
        rows[mode] = only(reconcile([record], law), "prefill")
    assert rows["compile"]["granularity_s"] == pytest.approx(0, abs=1e-12)
    assert rows["eager"]["granularity_s"] == rows["cuda-graph"]["granularity_s"] > 0
    plans = {mode: row["execution"] for mode, row in rows.items()}
    assert plans == {"eager": "hf-eager", "cuda-graph": "cuda-graph", "compile": "fused"}


def test_the_host_floor_is_what_launching_takes_beyond_the_device(lab):
    law = lab.law_of(host_s=1e-4)
    eager = lab.measured(lab.configuration(visual_tokens=1), calibration=law)
    graph = lab.measured(lab.configuration(visual_tokens=1, mode="cuda-graph"), calibration=law)
    row = only(reconcile([eager], law), "prefill")
    # 1,299 kernels x 0.1 ms, of which the device itself is busy for the graph's time.
    device_s = only(reconcile([graph], law), "prefill")["predicted_s"]
    assert row["predicted_s"] == pytest.approx(1299e-4)
    assert row["host_s"] == pytest.approx(1299e-4 - device_s)
    assert row["regime"] == "host"
    # A graph replays the language model, but tower and projector still wait for the host.
    vision = only(reconcile([graph], law), "vision")
    assert vision["predicted_s"] == pytest.approx(342e-4)


def test_the_total_is_the_prefill_and_what_a_paper_leaves_out(lab):
    law = lab.law_of()
    result = reconcile([lab.measured(calibration=law)], law)
    total, vision, projector = (only(result, name) for name in (TOTAL, "vision", "projector"))
    prefill = only(result, "prefill")
    assert total["ideal_s"] == prefill["ideal_s"]
    assert total["left_out_vision_s"] == pytest.approx(vision["predicted_s"])
    assert total["left_out_projector_s"] == pytest.approx(projector["predicted_s"])
    assert total["left_out_method_s"] == 0.0
    assert total["predicted_s"] == pytest.approx(
        prefill["predicted_s"] + vision["predicted_s"] + projector["predicted_s"]
    )


def test_a_method_inside_the_language_model_is_left_out_of_its_prefill(lab):
    law = lab.law_of()
    tokens = TokenCounts(576, 576, 40, 1, (616,) * 2 + (328,) * 30)
    config = lab.configuration(method="fastv", visual_tokens=288)
    record = lab.measured(
        config, calibration=law, tokens=tokens, stages=("vision", "reduction", "prefill", TOTAL)
    )
    result = reconcile([record], law)
    prefill, reduction = only(result, "prefill"), only(result, "reduction")
    assert prefill["left_out_method_s"] == pytest.approx(reduction["predicted_s"])
    assert prefill["unexplained_s"] == pytest.approx(0, abs=1e-12)
    assert prefill["visual_tokens"] == 288
    assert prefill["visual_tokens_llm"] == 576
    assert not prefill["flags"]


def test_an_adaptive_method_is_priced_with_the_tokens_it_came_to(lab):
    tokens = TokenCounts(576, 41, 40, 1, (81,) * 32)
    record = lab.measured(lab.configuration(method="prumerge", visual_tokens=None), tokens=tokens)
    row = only(reconcile([record]), "prefill")
    assert row["visual_tokens"] == 41
    assert not row["flags"]  # the schedule is the measured one


def test_unexplained_is_exactly_what_was_added(lab):
    law = lab.law_of()
    record = lab.measured(calibration=law, extra_s=0.001)
    for stage in ("vision", "prefill", TOTAL):
        assert only(reconcile([record], law), stage)["unexplained_s"] == pytest.approx(0.001)


def test_parts_of_every_row_add_up(lab):
    law = lab.law_of(host_s=5e-6)
    records = [
        lab.measured(lab.configuration(visual_tokens=n, mode=mode), calibration=law, factor=1.3)
        for n in (0, 1, 64, 576, 1152)
        for mode in ("eager", "cuda-graph", "compile")
    ]
    rows = reconcile(records, law).rows
    assert len(rows) == 15 * 4 - 3 * 1  # without visual tokens the tower does not run
    for row in rows:
        assert math.fsum(row[name] for name in PARTS) == pytest.approx(
            row["measured_s"] - row["ideal_s"], rel=1e-12, abs=1e-15
        )


def shared(record, waits=(0.003, 0.001)):
    """The record as one of two processes, whose collectives took so long."""
    collectives = {
        name: [StageSamples(event_s=(wait,) * 5) for wait in waits]
        for name in (COMMUNICATION, DECODE_COMMUNICATION)
    }
    members = tuple(
        RankSamples({**record.stages, **{name: each[rank] for name, each in collectives.items()}})
        for rank in range(2)
    )
    return replace(record, ranks=Ranks("nccl", {"all_reduce": 1}, members), schema_version=3)


@pytest.mark.parametrize("calibration", ["none", "auto", "law"])
def test_several_processes_are_compared_with_as_many_devices(lab, calibration):
    law = lab.law_of() if calibration == "law" else calibration
    record = shared(
        lab.measured(
            lab.configuration(output_tokens=2, tp=2), stages=("vision", "prefill", "decode", TOTAL),
            calibration=law if calibration == "law" else None,
        )
    )  # fmt: skip
    result = reconcile([record], law)
    cost = estimate(
        "llava-1.5-7b", lab.A100, visual_tokens=64, output_tokens=2, tp=2, execution="hf-eager",
        precision="bf16", calibration=law,
    )  # fmt: skip
    total, decode = only(result, TOTAL), only(result, "decode")
    before = ("vision", "projector", "reduction", "prefill")
    for row, stages in ((total, before), (decode, ("decode",))):
        assert row["measured_link_s"] == 0.001  # of the process that waited least
        assert row["predicted_link_s"] > 0
        assert row["predicted_link_s"] == pytest.approx(
            sum(cost.stages[stage].link_s for stage in stages)
        )
    assert only(result, "prefill")["measured_link_s"] is None
    assert only(result, "prefill")["predicted_flops"] == cost.stages["prefill"].flops
    assert total["predicted_peak_bytes"] < cost.memory.capacity_bytes
    for row in result.rows:
        assert math.fsum(row[name] for name in PARTS) == pytest.approx(
            row["measured_s"] - row["ideal_s"], rel=1e-12, abs=1e-15
        )
    beyond = total["efficiency_link_s"]
    assert beyond == 0 if calibration == "none" else beyond > 0
    if calibration == "law":
        assert total["unexplained_s"] == pytest.approx(0, abs=1e-9)


def test_several_devices_without_a_known_link_are_refused(lab):
    record = shared(lab.measured(lab.configuration(tp=2)))
    alone = replace(get_hardware(lab.A100), id="alone", links={})
    with pytest.raises(InvalidInputError, match=r"no link of .* to another device is known"):
        reconcile([record], "none", hardware=alone)


def test_without_a_calibration_the_rest_is_unexplained(lab):
    result = reconcile([lab.measured(factor=2.0)], "none")
    row = only(result, "prefill")
    assert row["efficiency_compute_s"] == row["efficiency_memory_s"] == row["host_s"] == 0.0
    assert row["unexplained_s"] > 0
    assert "no calibration" in result.notes[0]


def test_the_device_s_own_calibration_is_the_default(lab):
    record = lab.measured(factor=2.0)
    by_default, named = reconcile([record]), reconcile([record], lab.A100)
    assert by_default.calibration_name == lab.A100
    assert by_default.rows == named.rows


def test_a_gap_within_the_noise_says_so(lab):
    law = lab.law_of()
    # The samples spread over 4 %; their interquartile range is 2 %.
    near = only(reconcile([lab.measured(calibration=law, factor=1.01)], law), "prefill")
    far = only(reconcile([lab.measured(calibration=law, factor=1.1)], law), "prefill")
    assert near["noise_s"] == pytest.approx(0.02 * near["measured_s"])
    assert near["within_noise"] is True
    assert far["within_noise"] is False


def test_rounds_that_lie_apart_widen_the_noise(lab):
    law = lab.law_of()
    records = [
        lab.measured(calibration=law, factor=factor, round=number)
        for number, factor in enumerate((1.0, 1.2))
    ]
    first, second = reconcile(records, law).of_stage("prefill")
    assert first["noise_s"] == pytest.approx(second["measured_s"] - first["measured_s"])


def test_faster_than_the_products_need_is_a_unit_error(lab):
    record = lab.measured(
        lab.configuration(visual_tokens=576), factor=1e-3
    )  # milliseconds taken for seconds
    result = reconcile([record])
    row = only(result, "prefill")
    assert row["above_roof"] == "compute"
    assert any("a unit, a FLOP convention" in flag for flag in row["flags"])
    assert result.summary["above_roof"] == 4
    # It is kept, not dropped.
    assert row["measured_s"] > 0


def test_faster_than_the_traffic_needs_points_at_bytes_or_a_cache(lab):
    record = lab.measured(lab.configuration(visual_tokens=1), factor=0.8)
    row = only(reconcile([record]), "prefill")
    assert row["above_roof"] == "memory"
    assert any("a byte count or a bandwidth" in flag for flag in row["flags"])
    small = replace(lab.configuration(visual_tokens=1), model="llava-1.5-7b@layers=1,width=1/16")
    tokens = TokenCounts(576, 1, 40, 1, (41,))
    row = only(reconcile([lab.measured(small, factor=0.5, tokens=tokens)]), "projector")
    assert row["above_roof"] in ("memory", "compute")


def test_other_counts_than_predicted_are_flagged(lab):
    record = lab.measured(flops=123)
    assert any("FLOPs differ" in flag for flag in only(reconcile([record]), "prefill")["flags"])
    tokens = TokenCounts(576, 64, 40, 1, (104,) * 31 + (99,))
    record = lab.measured(tokens=tokens)
    flags = only(reconcile([record]), "prefill")["flags"]
    assert any("31 x 104, 1 x 99 keys" in flag for flag in flags)


def test_memory_is_compared_with_the_timeline_up_to_the_stage(lab):
    record = lab.measured()
    result = reconcile([record])
    assert result.summary["memory"]["mape"] < 0.02
    total = record.stages[TOTAL]
    stages = {**record.stages, TOTAL: replace(total, peak_allocated_bytes=10**9)}
    row = only(reconcile([replace(record, stages=stages)]), TOTAL)
    assert any("peak memory differs" in flag for flag in row["flags"])


def test_the_summary_speaks_of_every_group(lab):
    law = lab.law_of()
    records = [
        lab.measured(lab.configuration(visual_tokens=n, mode=mode), calibration=law, factor=1.25)
        for n in (1, 64, 144, 576)
        for mode in ("eager", "cuda-graph")
    ]
    result = reconcile(records, law)
    summary = result.summary
    assert summary["runs"] == 8
    assert summary["time"]["total"]["mape"] == pytest.approx(0.2)  # 1 / 1.25
    assert summary["time"]["total"]["bias"] == pytest.approx(0.8)
    assert set(summary["by_mode"]) == {"eager", "cuda-graph"}
    assert sum(found["count"] for found in summary["by_regime"].values()) == 8
    assert summary["flops"] == {"rows": 32, "equal": 32, "max_relative_error": 0.0}
    curves = [row for row in summary["series"] if row["stage"] == "prefill"]
    assert len(curves) == 2
    for curve in curves:
        assert curve["rank_correlation"] == 1.0
        assert curve["leave_one_count_out"]["max"] == pytest.approx(0.0, abs=1e-12)
        assert curve["knee_steps_apart"] == 0
        assert curve["measured_speedup"] == pytest.approx(curve["predicted_speedup"])
    assert "MAPE 20.0%" in repr(result)


def test_runs_that_differ_in_attention_or_cache_are_curves_of_their_own(lab):
    from profiling.report.figures import reconciliation_figures

    law = lab.law_of()
    records = [
        lab.measured(lab.configuration(visual_tokens=tokens, **way), calibration=law)
        for way in ({}, {"attention": "eager"}, {"cache": "cold"})
        for tokens in (1, 64, 576)
    ]
    result = reconcile(records, law)
    curves = [row for row in result.summary["series"] if row["stage"] == "total"]
    assert [(row["attention"], row["cache"]) for row in curves] == [
        ("sdpa", "warm"), ("eager", "warm"), ("sdpa", "cold"),
    ]  # fmt: skip
    figure = reconciliation_figures(result)["latency"]
    said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "eager, eager attention: measured" in said
    assert "eager, cold cache: measured" in said


def test_the_document_is_json_and_the_frame_has_its_columns(lab):
    result = reconcile([lab.measured()], lab.law_of())
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["schema_version"] == 1
    assert document["rows"][0].keys() == set(COLUMNS)
    frame = result.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 4


def test_folders_files_and_frames_give_the_same(lab, tmp_path):
    from profiling import load_measurements
    from profiling.records.storage import write_measurement

    records = [lab.measured(lab.configuration(visual_tokens=n)) for n in (1, 64)]
    for record in records:
        write_measurement(record, tmp_path)
    expected = reconcile(records).rows
    key = [("visual_tokens", "stage")]

    def by(rows):
        return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)

    assert by(reconcile(tmp_path).rows) == by(expected)
    assert by(reconcile([tmp_path / records[0].file_name, records[1]]).rows) == by(expected)
    frame = load_measurements(tmp_path)
    assert by(reconcile(frame).rows) == by(expected)
    few = reconcile(frame[frame.visual_tokens == 64])
    assert {row["visual_tokens"] for row in few.rows} == {64}, key


def out_of_memory(lab, batch):
    return Measurement(
        configuration=lab.configuration(batch_size=batch, visual_tokens=576),
        status="out-of-memory",
        sampling=Sampling(timer="cuda-event"),
        environment=lab.ENVIRONMENT,
        error="OutOfMemoryError: CUDA out of memory",
    )


def test_running_out_of_memory_is_joined_with_the_footprint(lab):
    result = reconcile([lab.measured(), out_of_memory(lab, 1), out_of_memory(lab, 512)])
    small, large = result.skipped
    assert small["predicted_to_fit"] is True
    assert large["predicted_to_fit"] is False
    assert large["predicted_peak_bytes"] > large["capacity_bytes"]
    assert result.summary["out_of_memory"] == {"rows": 2, "predicted": 1, "not_predicted": 1}
    assert result.summary["runs"] == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (lambda lab: [], "no measurement"),
        (lambda lab: 7, "not int"),
        (
            lambda lab: [
                lab.measured(),
                lab.measured(environment={**lab.ENVIRONMENT, "device_name": "NVIDIA L4"}),
            ],
            "2 devices",
        ),
        (
            lambda lab: [
                lab.measured(environment={**lab.ENVIRONMENT, "device_name": "NVIDIA Z9000"})
            ],
            "no device file describes",
        ),
        (lambda lab: [lab.measured(environment={})], "hardware="),
        (
            lambda lab: [
                lab.measured(
                    environment={"device_name": "a CPU"}, config=lab.configuration(device="cpu")
                )
            ],
            "no data sheet",
        ),
    ],
)
def test_what_cannot_be_joined_says_why(lab, records, message):
    with pytest.raises(InvalidInputError, match=message):
        reconcile(records(lab))


def test_an_unknown_model_is_named(lab):
    record = lab.measured()
    record = replace(record, configuration=replace(record.configuration, model="llama-9"))
    with pytest.raises(InvalidInputError, match=r"llama-9.*cannot be priced"):
        reconcile([record])


def test_a_dtype_the_device_lacks_is_named(lab):
    record = lab.measured()
    record = replace(record, configuration=replace(record.configuration, dtype="fp8"))
    with pytest.raises(InvalidInputError, match="fp8"):
        reconcile([record])


# (name in the record, memory, units, ROCm's target, hardware=) -> the device reconciled with.
NAMED = {
    ("A100-SXM4-80GB", 85_094_825_984, 108, None, None): "nvidia-a100-sxm4-80gb",
    ("nvidia a100 sxm4 80gb", 85_094_825_984, 108, None, "a100"): "nvidia-a100-sxm4-80gb",
    ("Orin", 65_893_089_280, 16, None, None): "nvidia-jetson-agx-orin-64gb",
    ("Orin", 7_693_115_392, 8, None, "nvidia-jetson-orin-nano-8gb"): "nvidia-jetson-orin-nano-8gb",
    ("", 205_822_885_888, 304, "gfx942:sramecc+:xnack-", None): "amd-mi300x",
    ("AMD Radeon Graphics", 205_822_885_888, 304, None, "amd-mi300x"): "amd-mi300x",
    ("AMD Instinct MI300X OAM", 205_822_885_888, 304, None, None): "amd-mi300x",
    ("A100-SXM4-80GB", 10 * 2**30, 14, None, "nvidia-a100-sxm4-80gb"): None,
    ("A100-SXM4-40GB", 42_405_855_232, 108, None, "nvidia-a100-sxm4-80gb"): None,
    ("Orin", 7_693_115_392, 8, None, None): None,
    ("AMD Instinct MI300X OAM", 205_822_885_888, 80, None, "amd-mi300x"): None,
    ("AMD Radeon Graphics", 205_822_885_888, 304, None, None): None,
}


@pytest.mark.parametrize("printed", NAMED, ids=str)
def test_a_devices_name_is_compared_as_detection_does(lab, printed):
    name, memory_bytes, units, target, hardware = printed
    environment = {"device_name": name, "device_memory_bytes": memory_bytes, "sm_count": units}
    if target is not None:
        environment["gcn_architecture"] = target
    records = [lab.measured(environment=environment)]
    if NAMED[printed] is None:
        with pytest.raises(InvalidInputError, match="measurements are of"):
            device_of(records, hardware, None)
    else:
        assert device_of(records, hardware, None).id == NAMED[printed]


def test_two_spellings_of_a_name_are_one_device(lab):
    names = ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB")
    records = [lab.measured(environment={**lab.ENVIRONMENT, "device_name": n}) for n in names]
    assert device_of(records, None, None).id == "nvidia-a100-sxm4-80gb"


def test_a_foreign_calibration_or_device_is_refused(lab):
    with pytest.raises(CalibrationError, match="nvidia-h100-sxm5-80gb"):
        reconcile([lab.measured()], "nvidia-h100-sxm5-80gb")
    with pytest.raises(InvalidInputError, match="not of"):
        reconcile([lab.measured()], hardware="nvidia-l40s")
    assert reconcile([lab.measured()], hardware=lab.A100).hardware.id == lab.A100


def test_a_cpu_is_known_by_its_calibration(lab):
    law = replace(lab.law_of(), hardware_id="cpu-measured", device_name="a CPU")
    config = lab.configuration(device="cpu")
    record = lab.measured(config, environment={"device_name": "a CPU"})
    result = reconcile([record], law)
    assert result.hardware.id == "cpu-measured"
    assert result.hardware.peak_or_none("bf16", engine="vector") == get_hardware(lab.A100).peak(
        "bf16"
    )
    other = lab.measured(config, environment={"device_name": "another CPU"})
    with pytest.raises(CalibrationError, match="another CPU"):
        reconcile([other], law)


def test_generic_parameters_are_bound_to_the_device(lab):
    result = reconcile([lab.measured()], "generic")
    assert result.hardware.id == lab.A100
    assert any("assumed, not measured" in note for note in result.notes)


def test_a_stage_without_samples_has_no_row(lab):
    record = lab.measured()
    stages = {**record.stages, "vision": StageSamples()}
    assert not reconcile([replace(record, stages=stages)]).of_stage("vision")


def test_a_processor_that_issues_its_own_work_adds_the_hosts_time(lab):
    """On a GPU launching overlaps with computing; on a CPU nothing is left to overlap with."""
    law = replace(lab.law_of(host_s=1e-5), hardware_id="cpu-measured", device_name="a CPU")
    config = lab.configuration(device="cpu", visual_tokens=64)
    row = only(
        reconcile([lab.measured(config, environment={"device_name": "a CPU"})], law), "prefill"
    )
    assert row["host_s"] == pytest.approx(row["predicted_kernels"] * 1e-5)
    gpu = lab.measured(lab.configuration(visual_tokens=576), calibration=lab.law_of(host_s=1e-5))
    row = only(reconcile([gpu], lab.law_of(host_s=1e-5)), "prefill")
    assert row["host_s"] == pytest.approx(0.0, abs=1e-12)  # hidden behind the device
