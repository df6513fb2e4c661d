"""A counting convention: a name, a source, its assumptions in words, and a pure function."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from costmodel.conventions.decoder import DecoderInput
from costmodel.memory import MemoryCost
from costmodel.quantities import MEMORY_KEYS, STAGES
from costmodel.result import Estimate, Stages, defined, total_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmodel.quantities import Num
    from costmodel.result import OpRow
    from costmodel.roofline import StageCost


@dataclass(frozen=True, slots=True)
class Convention:
    """One published way of counting, kept apart from the project's own formulas.

    Attributes:
        name: the name it is registered under.
        title: what it is, in a few words.
        source: the paper or program it was read from.
        default_text_tokens: the text length its authors used; None where they fix none.
        operations_per_mac: 1 where multiply-accumulates are printed as FLOPs, else 2.
        ffn_matrices: FFN matrices counted.
        counts_text: whether text tokens count at all.
        counts_head: whether the output head counts.
        assumptions: what it counts and how, in words.
        count: the counting function.
        devices: names of its own table of devices; empty where it defines no time.
    """

    name: str
    title: str
    source: str
    default_text_tokens: int | None
    operations_per_mac: int
    ffn_matrices: int
    counts_text: bool
    counts_head: bool
    assumptions: Mapping[str, str]
    count: Callable[[DecoderInput], Estimate]
    devices: tuple[str, ...] = ()

    def evaluate(self, model: Any, **given: Any) -> Estimate:
        """Count a model's work the way this convention does; what it does not define is None.

        Args:
            model: a `ModelConfig`, a `TextConfig`, or anything with a text config's numbers.
            given: the other fields of `DecoderInput`; `visual_tokens` is needed.

        Raises:
            InvalidInputError: a count out of range, or a schedule of the wrong length.
            UnknownHardwareError: the convention has its own device table, without this name.
            UnsupportedError: the convention does not define what was asked for.
        """
        return self.count(DecoderInput(model, **given))


def counted(
    given: DecoderInput,
    assumptions: Mapping[str, str],
    ops: tuple[OpRow, ...],
    stages: Mapping[str, StageCost],
    **memory: Num,
) -> Estimate:
    """Return what a convention counts in the shape of an estimate, None where it defines nothing.

    `stages` are those that the convention knows, `memory` the quantities of the memory that it defines.
    """
    footprint: dict[str, Any] = dict.fromkeys(MEMORY_KEYS) | memory
    every = Stages({name: stages.get(name) or defined() for name in STAGES})
    return Estimate(
        every,
        total_cost(every, given.output_tokens),
        MemoryCost(**footprint),
        (),
        lambda: {place.name: getattr(given, place.name) for place in fields(given)},
        lambda: ops,
        lambda: dict(assumptions),
    )
