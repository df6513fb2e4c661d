"""The data sets in `measurements/` are whole, tidy, and agree with the cost model where they must."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from costmodel import estimate
from costmodel.calibration.tables import read_tables
from profiling.records.frame import load_measurements
from profiling.records.measurement import TOTAL
from profiling.records.storage import read_measurements

ROOT = Path(__file__).parents[3] / "measurements"
FOLDERS = sorted(path for path in ROOT.iterdir() if path.is_dir()) if ROOT.is_dir() else []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_data_set_is_readable_and_says_where_it_comes_from(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_measurements(folder)
    assert records
    for record in records:
        assert record.environment["device_name"]
        assert record.environment["torch"]
        assert record.started_at
        assert record.status in ("ok", "out-of-memory", "failed", "throttled")
    text = (folder / "README.md").read_text()
    for word in ("torch", "transformers", folder.name[-10:]):
        assert word in text
    assert len(load_measurements(folder)) >= len(records)
    assert all((frame["time_s"] > 0).all() for _, frame in read_tables(folder))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_counted_flops_are_the_cost_models(folder: Path) -> None:
    compared = 0
    for record in read_measurements(folder):
        asked = record.configuration
        if record.status != "ok" or asked.method != "none":
            continue
        expected = estimate(
            asked.model, "nvidia-h200-sxm-141gb", visual_tokens=asked.visual_tokens,
            text_tokens=asked.text_tokens, batch_size=asked.batch_size,
            output_tokens=asked.output_tokens, precision=asked.dtype, execution="hf-eager",
        )  # fmt: skip
        for stage, data in record.stages.items():
            if stage != TOTAL and data.flops is not None:
                assert data.flops == expected.stages[stage].flops, (asked.key, stage)
                compared += 1
    assert compared


def test_the_cpu_sweep_is_quiet_enough() -> None:
    (path,) = (folder / "sweep.jsonl" for folder in FOLDERS if folder.name.startswith("amd-epyc"))
    records = read_measurements(path)
    assert len({record.configuration.visual_tokens for record in records}) == 12
    for record in records:
        spread = record.stages[TOTAL].summary.dispersion
        assert spread is not None
        assert spread < 0.05
