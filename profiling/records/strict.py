"""What no record says: times that no clock reads, counts below nothing, a run without its total.

A typo in a key would drop a quantity in silence, and a negative time or a text for a memory size would
end far away, in a message without file or field. So each is refused where the record is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from costmodel.quantities import STAGES
from hardware_specs.errors import InvalidFileError
from profiling.records.measurement import (
    COMMUNICATION,
    DECODE_COMMUNICATION,
    GENERATION,
    RANKS_VERSION,
    TOTAL,
    Measurement,
)

#: No run takes longer, in seconds: 30 years.
MOST_SECONDS = 1e9
#: No count is larger: it would fit into no column of a table.
MOST = 2**63 - 1
#: Moments, counted from 0, and the busy time of a stage without kernels may be 0, as samples may not.
_FROM_ZERO = frozenset({"power_times_s", "busy_s"})
#: Every stage that a record may have.
_NAMES = (*STAGES, COMMUNICATION, DECODE_COMMUNICATION, TOTAL, GENERATION)
_ANY_SIGN = frozenset({"temperature_c"})
#: Names that end so are numbers where a record leaves the choice, and so are texts.
_NUMBER = re.compile(r".*(_bytes|_count|_hz|_w)|threads")
_TEXT = re.compile(r".*(_name|_uuid|_architecture)|python|torch|transformers|cuda|driver")


def check_record(record: Measurement) -> None:
    """Refuse a record that contradicts itself or what can be measured.

    Raises:
        InvalidFileError: names the field and what stands there.
    """
    for name in (
        "sampling", "stages", "tokens", "device_state", "energy", "round", "position", "ranks",
    ):  # fmt: skip
        check_numbers(getattr(record, name), name)
    _check_ranks(record)
    check_environment(record.environment)
    sampled = [name for name, stage in record.stages.items() if stage.event_s]
    for name in (*record.stages, *(window.stage for window in record.energy)):
        if name not in _NAMES:
            known = ", ".join(_NAMES)
            raise InvalidFileError(f"{name[:60]!r} is no stage; there is: {known}")
    if record.status != "ok":
        if sampled:
            raise InvalidFileError(f"status is {record.status!r}, yet {sampled[0]} has samples")
    elif record.boundary is not None:
        if not sampled:
            raise InvalidFileError("status is 'ok', yet no stage has samples")
    elif TOTAL not in sampled:
        raise InvalidFileError(
            "status is 'ok', yet the stage 'total' has no samples; a record of another tool says in "
            "'boundary' what its clock held"
        )


def _check_ranks(record: Measurement) -> None:
    """Refuse a record whose processes are not as many as it says, or did not repeat the same."""
    tp, ranks = record.configuration.tp, record.ranks
    if (ranks is None) != (tp == 1) or (ranks is None) != (record.schema_version < RANKS_VERSION):
        raise InvalidFileError(
            f"schema_version is {record.schema_version} and tp {tp}, yet ranks is "
            f"{'missing' if ranks is None else 'there'}; schema_version {RANKS_VERSION}, tp above 1 and "
            "ranks go together"
        )
    if ranks is None:
        return
    if len(ranks.members) != tp:
        raise InvalidFileError(f"ranks has {len(ranks.members)} members, yet tp is {tp}")
    for number, member in enumerate(ranks.members):
        for name, stage in record.stages.items():
            count = len(member.stages[name].event_s) if name in member.stages else 0
            if count != len(stage.event_s):
                raise InvalidFileError(
                    f"ranks.members.{number} has {count} samples of {name}, yet the record "
                    f"{len(stage.event_s)}"
                )


def check_numbers(value: Any, where: str, shortest_s: float | None = None) -> None:
    """Refuse a number out of range, by the unit that ends its field's name.

    Args:
        value: a number, or dataclasses, mappings and tuples of them.
        where: the field, with dots between the levels.
        shortest_s: the least time; None for any above 0.

    Raises:
        InvalidFileError: a time that is not above 0, anything else below 0, or too large.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{where}.{key}", shortest_s)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            check_numbers(item, f"{where}.{index}", shortest_s)
    elif isinstance(value, (int, float)):
        fields = [part for part in where.split(".") if not part.isdigit()]
        if fields[-1] in _ANY_SIGN:
            return
        is_time = fields[-1].endswith("_s")
        above = is_time and shortest_s is None and fields[-1] not in _FROM_ZERO
        if value < 0 or (above and value == 0):
            least = "above 0" if above else "at least 0"
            raise InvalidFileError(f"{where} must be {least}, not {value}")
        if value > (MOST_SECONDS if is_time else MOST):
            raise InvalidFileError(f"{where} is {value:.3g}, more than anything measured")
    else:
        for name in getattr(value, "__dataclass_fields__", ()):
            check_numbers(getattr(value, name), f"{where}.{name}", shortest_s)


def check_environment(environment: Mapping[str, Any]) -> None:
    """Refuse an environment whose names, versions and sizes are of another kind.

    Raises:
        InvalidFileError: names the field.
    """
    for name, value in environment.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        kind = (
            "a text" if _TEXT.fullmatch(name) and not isinstance(value, str)
            else "a number" if _NUMBER.fullmatch(name) and not is_number
            else None
        )  # fmt: skip
        if kind is not None and value is not None:
            raise InvalidFileError(
                f"environment.{name[:60]} must be {kind}, not {str(value)[:60]!r}"
            )
        if is_number:
            check_numbers(value, f"environment.{name[:60]}")
