"""Sweeps: what may be swept, what is refused, what cannot be priced, and columns that keep their type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from costmodel import estimate, sweep
from costmodel.calibration import Calibration
from costmodel.questions.chunks import join_chunks
from costmodel.questions.sweeps import sweep_chunks
from hardware_specs.errors import InvalidInputError, UnknownNameError
from vlm_roofline.cli import main

A100, H100, TPU = "nvidia-a100-sxm4-80gb", "nvidia-h100-sxm5-80gb", "google-tpu-v5e"


@pytest.mark.parametrize(
    "counts",
    [[1, 64], (1, 64), range(1, 65, 63), np.array([1, 64], dtype=np.int16), pd.Series([1, 64])],
    ids=["list", "tuple", "range", "array", "series"],
)
def test_counts_of_any_kind(counts: Any) -> None:
    table = sweep("llava-1.5-7b", A100, visual_tokens=counts)
    assert table.visual_tokens.tolist() == [1, 64]
    assert table.flops[1] == estimate("llava-1.5-7b", A100, visual_tokens=64).totals.flops


def test_one_value_of_any_kind() -> None:
    table = sweep(
        "llava-1.5-7b", A100, visual_tokens=np.asarray(5), text_tokens=None, attention=None,
        method="fastv", layer=np.int64(3), keep=np.float64(0.5),
    )  # fmt: skip
    given = {"visual_tokens": 5, "method": "fastv", "layer": 3, "keep": 0.5}
    assert table.flops[0] == estimate("llava-1.5-7b", A100, **given).totals.flops
    assert (table.text_tokens[0], table.attention[0]) == (40, "flash")


def test_image_sizes_are_pairs() -> None:
    """One pair is one size; a tuple of pairs is several."""
    model = "llava-next-vicuna-7b"
    assert len(sweep(model, A100, image_size=(480, 640))) == 1
    assert sweep(model, A100, image_size=((480, 640), (336, 336))).visual_tokens[0] == 2340


@pytest.mark.parametrize(
    "arguments",
    [
        {"visual_tokens": []},
        {"visual_tokens": np.array([], dtype=int)},
        {"visual_tokens": [1, -1]},
        {"visual_tokens": [1.5]},
        {"visual_tokens": [True]},
        {"visual_tokens": [[1, 2], [3, 4]]},
        {"visual_tokens": [[1], [2, 3]]},
        {"visual_tokens": (n for n in (1, 2))},
        {"visual_tokens": [10**30]},
        {"batch_size": [0]},
        {"text_tokens": ["many"]},
        {"visual_tokens": [None, 4]},
        {"method": "divprune", "keep": np.array([])},
        {"convention": "fastv"},
        {"temperature": 1},
        {"visual_tokens": 0, "text_tokens": 0},
        {"errors": "hide"},
    ],
)
def test_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((InvalidInputError, UnknownNameError)) as caught:
        sweep("llava-1.5-7b", A100, **arguments)
    assert "\n" not in str(caught.value)


def test_what_no_device_or_layer_can_do_is_kept_with_its_reason() -> None:
    table = sweep("llava-1.5-7b", [A100, H100], precision="fp8", errors="keep")
    assert list(table.hardware) == [A100, H100]
    assert "fp8" in table.error[0]
    assert np.isnan(table.time_s[0])
    assert table.time_s[1] > 0
    assert pd.isna(table.error[1])
    layers = sweep("llava-1.5-7b", A100, method="fastv", layer=[40, 2], errors="keep")
    assert "layers 0 to 31" in layers.error[0]
    assert layers.flops[1] == estimate("llava-1.5-7b", A100, method="fastv", layer=2).totals.flops
    assert list(layers.layer) == [40, 2]


@pytest.mark.parametrize("none", ["none", None])
def test_the_unreduced_model_stands_beside_methods_once(none: str | None) -> None:
    given = {"method": [none, "divprune", "fastv"], "keep": [64, 0.5], "layer": [2, 3]}
    table = sweep("llava-1.5-7b", A100, batch_size=[1, 8], **given)
    assert list(table["method"]).count("none") == 2
    assert len(table) == 2 * (1 + 2 * 2 * 2)
    baseline = table[table["method"] == "none"]
    assert baseline[["keep", "layer"]].isna().all(axis=None)
    assert baseline["flops"].iloc[0] == estimate("llava-1.5-7b", A100).totals.flops
    with pytest.raises(InvalidInputError, match="belongs to a method"):
        sweep("llava-1.5-7b", A100, method=none, keep=[64, 0.5])


def test_rows_of_one_chunk_fail_apart() -> None:
    """Keeping 64 tokens of 32 is impossible; of 64 and 128 it is not, nor of none."""
    given = {"method": "divprune", "keep": 64, "text_tokens": [8, 40], "batch_size": [1, 2, 3]}
    table = sweep("llava-1.5-7b", A100, visual_tokens=[0, 32, 64, 128], errors="keep", **given)
    failed = table.error.notna()
    assert table.visual_tokens[failed].unique().tolist() == [32]
    assert failed.sum() == 6
    assert table.time_s.isna().equals(failed)
    whole = sweep("llava-1.5-7b", A100, visual_tokens=[0, 64, 128], **given)
    assert table.time_s[~failed].tolist() == whole.time_s.tolist()
    with pytest.raises(InvalidInputError, match="keep=64"):
        sweep("llava-1.5-7b", A100, visual_tokens=[0, 32, 64, 128], **given)


def test_a_count_of_one_is_no_ratio_of_one() -> None:
    table = sweep("llava-1.5-7b", A100, method="divprune", keep=[1, 1.0])
    assert table.keep.tolist() == ["1", "1.0"]
    assert table.flops[0] < table.flops[1]


def test_columns_keep_their_type_whatever_is_known() -> None:
    """A device without a capacity and rows without a price change no column's place or kind."""
    given = {"precision": ["bf16", "w4a16"], "visual_tokens": [0, 576], "stage_columns": True}
    chunks = list(sweep_chunks("llava-1.5-7b", [TPU, A100, "nosuch"], errors="keep", **given))
    frames = [join_chunks([chunk]) for chunk in chunks]
    assert len({tuple(frame.columns) for frame in frames}) == 1
    for frame in frames:
        assert frame.flops.dtype == frame.kernels.dtype == frame.vision_weight_bytes.dtype == float
        assert isinstance(frame.keep.dtype, pd.CategoricalDtype)
        assert frame.fits.dtype in (bool, pd.BooleanDtype())
        assert frame.crops.dtype in (int, pd.Int64Dtype())
    table = join_chunks(chunks)
    assert table.error.notna().tolist() == [False, False, True, True, *[False] * 4, *[True] * 4]
    assert table.fits[4:8].all()
    assert table.fits[8:].isna().all()


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_pieces_of_a_file_agree(name: str, tmp_path, capsys, monkeypatch) -> None:
    """Each combination becomes a piece of its own here, the unpriced ones first."""
    monkeypatch.setattr("costmodel.questions.parts.GROUP_ROWS", 1)
    out = tmp_path / name
    line = f"sweep llava-1.5-7b -d nosuch,{TPU},{A100} --precision bf16 --method divprune \
--keep 600,0.5,64 --visual-tokens 576 --errors keep --out {out}"
    assert main(line.split()) == 0
    capsys.readouterr()
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    table = read(out)
    assert [float(keep) for keep in table.keep] == [600, 0.5, 64] * 3
    assert table.error.notna().tolist() == [True] * 4 + [False, False, True, False, False]
    price = estimate("llava-1.5-7b", A100, method="divprune", keep=64, precision="bf16")
    assert table.time_s.to_numpy()[-1] == pytest.approx(price.totals.time_s)
    assert table.kernels.to_numpy()[-1] == price.totals.kernels


def test_json_has_null_for_what_is_not_known(capsys) -> None:
    import json

    line = f"sweep llava-1.5-7b -d nosuch,{A100} --errors keep --json"
    assert main(line.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["fits"] for row in rows] == [None, True]
    assert [row["visual_tokens"] for row in rows] == [None, 576]
    assert rows[1]["error"] is None


def test_vision_layers_on_the_command_line(capsys) -> None:
    line = f"sweep llava-1.5-7b -d {A100} --vision-layers executed,useful"
    assert main(line.split()) == 0
    rows = capsys.readouterr().out.splitlines()
    flops = rows[0].split(",").index("flops")
    whole, useful = (float(row.split(",")[flops]) for row in rows[1:])
    # one layer of the tower over 577 tokens
    assert whole - useful == 2 * 577 * (4 * 1024**2 + 2 * 1024 * 4096) + 4 * 577**2 * 1024


def test_nobody_waits_where_nothing_runs() -> None:
    """The stall of a stage is charged to rows that have the stage."""
    from dataclasses import replace

    slow = replace(Calibration.load(A100), host_sync_s=1.0)
    given = {"execution": "hf-eager", "calibration": slow, "method": "divprune", "keep": 0.5}
    table = sweep(
        "llava-1.5-7b", A100, visual_tokens=[0, 64], output_tokens=[0, 3], stage_columns=True,
        **given,
    )  # fmt: skip
    assert (table.decode_time_s > 0).tolist() == [False, True, False, True]
    assert (table.reduction_time_s > 0).tolist() == [False, False, True, True]
    for _, row in table.iterrows():
        counts = {"visual_tokens": row.visual_tokens, "output_tokens": row.output_tokens}
        cost = estimate("llava-1.5-7b", A100, **counts, **given)
        assert row.time_s == pytest.approx(cost.totals.time_s, rel=1e-12)


def test_a_tower_without_images_runs_nothing_in_any_row() -> None:
    """Counts that vary inside the tower take another way through the vision stage."""
    from costmodel.questions.distribution import estimate_distribution

    spread = estimate_distribution("llava-1.5-7b", A100, "tome", counts=[2, 4], visual_tokens=0)
    one = estimate("llava-1.5-7b", A100, method="tome", keep=2, visual_tokens=0)
    assert spread.values["hbm_bytes"][0] == one.totals.hbm_bytes
