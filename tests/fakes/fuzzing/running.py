"""Drive doors: cases from a seed, a tally per door, each failure's cause once."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzzing.known import is_known
from fuzzing.verdict import judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Door:
    """One way into the project.

    Attributes:
        name: of the door.
        case: makes a case from a random generator and a folder of its own.
        run: sends it through; returns an answer that can be checked, or raises.
        heavy: how many times fewer cases than asked for, where one takes long.
    """

    name: str
    case: Callable[[random.Random, Path], Any]
    run: Callable[[Any], Any]
    heavy: int = 1


@dataclass
class Tally:
    """What came of a door's cases."""

    door: str
    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Count another piece of the same door in."""
        self.cases += other.cases
        self.kinds += other.kinds
        self.causes += other.causes
        self.known += other.known
        self.example = other.example | self.example


def fuzzed(door: Door, cases: int, seed: int | str = 0) -> Iterator[Tally]:
    """Run cases of a door and yield the tally as it grows."""
    tally = Tally(door.name)
    generator = random.Random(f"{door.name}|{seed}")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(max(1, cases // door.heavy)):
            case = door.case(generator, Path(folder))
            outcome = judged(lambda case=case: door.run(case))
            tally.cases += 1
            tally.kinds[outcome.kind] += 1
            if outcome.kind == "failed":
                where = tally.known if is_known(door.name, outcome.cause) else tally.causes
                where[outcome.cause] += 1
                tally.example.setdefault(
                    outcome.cause, f"case {number} of seed {seed}: {outcome.text}"
                )
            yield tally
