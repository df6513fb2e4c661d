"""`Comparison`: two traces side by side, by parts of the time line, and the sentence that sums them up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: The parts in the order they are stacked, in words.
PARTS = {
    "linears": "products with weights of the language model",
    "attention": "attention of the language model",
    "method": "the method's own work",
    "other_ops": "norms, pointwise ops and copies of the language model",
    "vision": "the vision tower",
    "projector": "the projector",
    "decode": "the decode steps",
    "outside": "work outside every stage",
    "unattributed": "work linked to no op",
    "copies": "copies of memory",
    "host": "waiting for the host",
    "device_gaps": "gaps of the device's own",
    "overlap": "streams that ran at the same time",
}
#: A further reason is named if it is at least this share of what was lost.
_WORTH_NAMING = 0.1
#: A part of the time after that is more than this is named, whatever it was before.
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """One part of both runs, in seconds.

    Attributes:
        name: a key of `PARTS`.
        before_s: in the first trace.
        after_s: in the second.
        expected_s: in the second, had it followed the tokens.
        lost_s: after less expected.
    """

    name: str
    before_s: float
    after_s: float
    expected_s: float
    lost_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two traces side by side, each by one pass of its prefill.

    Attributes:
        source: the second trace's name.
        tokens_before: mean tokens of the layers of the first; None where sizes were not recorded.
        tokens_after: of the second.
        time_before_s: the time line of the first, by pass.
        time_after_s: of the second.
        parts: where the time went; `lost_s` adds up to time_after_s - expected.
        fused_lost: layers whose attention was fused before and writes its scores after.
        fused_kernel: what computed it before.
        written_beside: scores written out more than before, while attention stayed fused.
        launches_before: device work handed over, by pass.
        launches_after: of the second.
        interrupted_s: seconds that other programs took from both runs, left out everywhere.
    """

    source: str
    tokens_before: float | None
    tokens_after: float | None
    time_before_s: float
    time_after_s: float
    parts: tuple[Part, ...]
    fused_lost: int
    fused_kernel: str
    written_beside: int
    launches_before: int
    launches_after: int
    interrupted_s: tuple[float, float] = (0.0, 0.0)

    @property
    def ratio(self) -> float:
        """Tokens after over tokens before; 1 where they are not known."""
        if not self.tokens_before or self.tokens_after is None:
            return 1.0
        return self.tokens_after / self.tokens_before

    @property
    def expected_s(self) -> float:
        """The time after, had all of it followed the tokens."""
        return self.time_before_s * self.ratio

    @property
    def sentence(self) -> str:
        """What happened, and the largest reason why time did not follow the tokens."""
        return _sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "source": self.source,
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "time_before_s": self.time_before_s,
            "time_after_s": self.time_after_s,
            "expected_s": self.expected_s,
            "fused_attention_lost_layers": self.fused_lost,
            "scores_written_beside_fused": self.written_beside,
            "launches_before": self.launches_before,
            "launches_after": self.launches_after,
            "interrupted_s": list(self.interrupted_s),
            "parts": [asdict(part) for part in self.parts],
        }  # fmt: skip


def _sentence(found: Comparison) -> str:
    if found.tokens_before is None or found.tokens_after is None:
        tokens = "Tokens are not known, since no sizes were recorded"
    elif found.ratio >= 1:
        tokens = (
            f"Tokens did not fall ({found.tokens_before:.0f} and {found.tokens_after:.0f} a layer)"
        )
    else:
        tokens = (
            f"Tokens fell from {found.tokens_before:.0f} to {found.tokens_after:.0f} a layer "
            f"({1 - found.ratio:.0%})"
        )
    change = 1 - found.time_after_s / found.time_before_s if found.time_before_s else 0.0
    moved = f"fell by {change:.0%}" if change >= 0 else f"rose by {-change:.0%}"
    times = f"time {moved}, from {in_words(found.time_before_s)} to {in_words(found.time_after_s)}"
    lost = sorted((part for part in found.parts if part.lost_s > 0), key=lambda part: -part.lost_s)
    whole = sum(part.lost_s for part in lost)
    also = [
        part
        for part in lost[1:]
        if (part.name == "attention" and found.fused_lost and part.lost_s >= _WORTH_NAMING * whole)
        or (part.name == "host" and part.after_s >= _WORTH_NAMING * found.time_after_s)
    ]
    reasons = [_reason(found, part) for part in (*lost[:1], *also)]
    held = next((part for part in found.parts if part.name == "host" and part not in lost), None)
    if held is not None and held.after_s >= _MOSTLY * found.time_after_s:
        share = held.after_s / found.time_after_s
        reasons.append(f"the host, which still takes {share:.0%} of the time")
    if found.fused_lost and not any("was lost" in reason for reason in reasons):
        reasons.append(f"fused attention was lost in {found.fused_lost} layers as well")
    elif found.written_beside and _written_words(found) not in " ".join(reasons):
        reasons.append(f"besides, the method computes attention, {_written_words(found)}")
    if not lost or found.time_after_s <= found.expected_s:
        rest = f"; what holds it most: {'; then '.join(reasons)}" if reasons else ""
        return f"{tokens}; {times}, no less than the tokens{rest}."
    return f"{tokens}; {times}; the largest reason: {'; then '.join(reasons)}."


def _reason(found: Comparison, part: Part) -> str:
    cost = f"{in_words(part.lost_s)} more than the tokens allow"
    if part.name == "attention" and found.fused_lost:
        kernel = f" ({found.fused_kernel})" if found.fused_kernel else ""
        return f"fused attention{kernel} was lost, {found.fused_lost} layers write their scores out ({cost})"
    if part.name in ("method", "attention") and found.written_beside:
        return f"{PARTS[part.name]}, {_written_words(found)} ({cost})"
    if part.name == "host":
        return (
            f"the host, which hands over {found.launches_after} launches "
            f"({found.launches_before} before) and keeps the device waiting ({cost})"
        )
    if part.name in ("vision", "projector", "decode"):
        return f"{PARTS[part.name]}, which the cut leaves as it was ({cost})"
    return f"{PARTS[part.name]} ({cost})"


def _written_words(found: Comparison) -> str:
    layers = f"{found.written_beside} layer{'s' * (found.written_beside != 1)}"
    return f"which writes the scores of {layers} out beside fused attention"


def in_words(seconds: float) -> str:
    """Write a time, three digits, in milliseconds or seconds."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
