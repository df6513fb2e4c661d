"""One record of several processes: rank 0 leads through a campaign, the others follow point by point."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from profiling.records.measurement import RANKS_VERSION, Ranks, RankSamples, StageSamples
from profiling.subject.division import Collectives, divide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from profiling.devices.ranks import Group
    from profiling.records.measurement import Measurement

#: What the first process tells the others instead of a point, while other workers hold those that are left.
WAIT = "wait"


class Sharing:
    """What a process of a group needs to build and to measure its share of a model.

    Args:
        group: the processes.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.collectives = Collectives(group.rank, group.size)

    def divide(self, model: nn.Module) -> None:
        """Leave a model with this process's share; see `profiling.subject.division.divide`."""
        divide(model, self.collectives)

    def sent_by(self, run: Callable[[], None]) -> dict[str, int]:
        """Return the bytes of this process's collectives in one repetition, by kind."""
        self.collectives.sent.clear()
        run()
        return dict(self.collectives.sent)

    def joined(self, record: Measurement, model: nn.Module, sent: Mapping[str, int]) -> Measurement:
        """Return the record of all processes, the same on each of them.

        Args:
            record: of this process.
            model: its share.
            sent: the bytes of its collectives in one repetition, by kind.
        """
        mine: dict[str, Any] = {
            "stages": dict(record.stages),
            "device_name": record.environment.get("device_name"),
            "device_state": record.device_state,
            "parameters": sum(each.numel() for each in model.parameters()),
        }
        members = tuple(RankSamples(**each) for each in self.group.gather(mine))
        stages = {
            name: slowest([member.stages[name] for member in members]) for name in record.stages
        }
        ranks = Ranks(self.group.backend, dict(sent), members)
        return replace(record, stages=stages, ranks=ranks, schema_version=RANKS_VERSION)


def slowest(samples: Sequence[StageSamples]) -> StageSamples:
    """Return of every sample and count of a stage the largest among processes that repeated the same.

    Args:
        samples: of each process, with as many repetitions.

    >>> slowest([StageSamples(event_s=(1.0, 4.0)), StageSamples(event_s=(2.0, 3.0))]).event_s
    (2.0, 4.0)
    """
    return StageSamples(
        **{
            item.name: _largest([getattr(each, item.name) for each in samples])
            for item in fields(StageSamples)
        }
    )


def _largest(values: Sequence[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(_largest(each) for each in zip(*values, strict=True))
    known = [value for value in values if value is not None]
    return max(known, default=None)


def follow(group: Group, measure: Callable[[str], None]) -> None:
    """Measure the points that rank 0 names, until it names none.

    Args:
        group: the processes; this one is not its first.
        measure: takes the file name of a point.
    """
    while (name := group.same("")) != "":
        if name != WAIT:
            measure(name)
