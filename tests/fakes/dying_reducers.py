"""A reducer whose worker is killed while it has a part, so many times."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel import top_k

if TYPE_CHECKING:
    from costmodel.questions.reducers import Part

BEST = top_k(5)


@dataclass(frozen=True)
class Dying:
    """The best five rows, from workers that die over the second part."""

    folder: str
    deaths: int
    columns: tuple[str, ...] = BEST.columns

    def reduced(self, part: Part) -> Any:
        state = BEST.reduced(part)
        for death in range(self.deaths if part.number == 1 else 0):
            mark = Path(self.folder, str(death))
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return state

    merged = staticmethod(BEST.merged)
    result = staticmethod(BEST.result)
