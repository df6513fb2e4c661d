"""`AgainstModel`: the stages of a trace beside those of a model's estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AgainstModel:
    """A trace's stages beside a model's estimate.

    Attributes:
        model: its name.
        visual_tokens: that entered the language model, per sequence.
        text_tokens: the rest of the prefill.
        batch_size: sequences.
        output_tokens: decode steps.
        passes: how often the prefill ran in the trace; every time is of one.
        rows: by stage: measured_s, device_s, ideal_s, predicted_s and the parts between.
        flags: where trace and model contradict each other.
    """

    model: str
    visual_tokens: int
    text_tokens: int
    batch_size: int
    output_tokens: int
    passes: int
    rows: tuple[dict[str, Any], ...]
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("rows", "flags")},
            "stages": {
                row["stage"]: {k: v for k, v in row.items() if k != "stage"} for row in self.rows
            },
            "flags": list(self.flags),
        }
