"""Published times of Qwen's families on Jetsons, against what `docs/families.md` says of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from costmodel import estimate

_TABLE = Path(__file__).parent / "data" / "jetson_qwen_vl.csv"
ROWS = list(csv.DictReader(_TABLE.read_text(encoding="utf-8").splitlines()))


def ratios(row: dict[str, str], calibration: str | None) -> tuple[float, float]:
    """Predicted over measured: time of the tower, speed of decoding."""
    batch = int(row["batch"])
    cost = estimate(
        row["model"], row["device"], visual_tokens=int(row["visual_tokens"]), text_tokens=24,
        output_tokens=64, precision=row["precision"], batch_size=batch, calibration=calibration,
    )  # fmt: skip
    tower = cost.stages["vision"].time_s + cost.stages["projector"].time_s
    assert cost.totals.tpot_s is not None
    speed = batch / cost.totals.tpot_s
    return tower / float(row["vision_s"]), speed / float(row["decode_tokens_per_s"])


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['device']}-{r['model']}-{r['batch']}")
def test_the_ideal_is_never_slower_than_what_was_measured(row: dict[str, str]) -> None:
    tower, speed = ratios(row, None)
    assert tower < 1
    assert speed > 1


@pytest.mark.parametrize("row", [r for r in ROWS if r["batch"] == "1"], ids=lambda r: r["device"])
def test_one_sequence_is_within_what_the_page_says(row: dict[str, str]) -> None:
    tower, speed = ratios(row, "generic")
    assert 0.88 - 0.01 < speed < 1.16 + 0.01
    assert 0.9 < tower < (1.46 if "thor" in row["device"] else 1.26)
