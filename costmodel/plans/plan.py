"""What an execution plan is: rules from blocks to ops, and facts about who launches them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from costmodel.quantities import Num, OpCost
from hardware_specs.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costmodel.blocks import Block
    from costmodel.ops.linear import RowsCost
    from costmodel.precision import Numerics, Precision

#: Numbers of rows by name (`costmodel.blocks` names them), and beside them `count` executions,
#: `batch` samples or crops, `queries` and `keys` of an attention, `summed` queries with a result.
Rows: TypeAlias = Mapping[str, Num]
#: A block's op, waiting for its rows.
Step: TypeAlias = Callable[[Rows], OpCost]
#: From a block and where it stands to its ops.
Rule: TypeAlias = "Callable[[Any, Setting], list[Step]]"


class Setting(NamedTuple):
    """Where blocks stand.

    Attributes:
        precision: the numerics of every module.
        numerics: of the module they stand in.
        phase: `encoder`, `prefill` or `decode`.
        written: whether attention writes its scores out.
    """

    precision: Precision
    numerics: Numerics
    phase: str
    written: bool

    def of(self, module: str) -> Numerics:
        """Return the numerics of a named module, or of the one the blocks stand in."""
        named: Numerics = getattr(self.precision, module) if module else self.numerics
        return named


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One way to run a model.

    Attributes:
        name: what `execution=` takes.
        label: what plots call it.
        rules: kind of block -> its ops; no rule that fits is an error, an empty list is no kernel.
        closing: kind of block -> ops listed after those of the whole layer.
        runs_pytorch: whether tensors live as long as in `transformers` under PyTorch (the caller
            keeps inputs, an eager attention its scores, grouped keys are repeated), in its
            allocator, and chains of kernels read again what they just wrote.
        host_launches: whether the host launches every kernel, and may be what the device waits for.
        static_cache: whether one KV cache of a fixed length serves all layers, so that a method may
            not leave them of different lengths.
    """

    name: str
    label: str
    rules: Mapping[type, Rule]
    closing: Mapping[type, Rule] = field(default_factory=dict)
    runs_pytorch: bool = False
    host_launches: bool = False
    static_cache: bool = False

    def lower(self, blocks: Iterable[Block], setting: Setting) -> list[Step]:
        """Return the ops of blocks, waiting for their rows.

        Raises:
            UnsupportedError: a kind of block that the plan has no rule for.
        """
        steps: list[Step] = []
        last: list[Step] = []
        for block in blocks:
            rule = self.rules.get(type(block))
            if rule is None:
                raise UnsupportedError(
                    f"the plan {self.name} has no rule for {type(block).__name__}; "
                    "add one to its rules"
                )
            steps += rule(block, setting)
            closing = self.closing.get(type(block))
            if closing is not None:
                last += closing(block, setting)
        return steps + last


def rows_of(rows: str, numbers: Rows) -> Num:
    """Return how many rows a name stands for; behind a `/`, of the fullest of so many ranks.

    >>> rows_of("mlp", {"mlp": 5}), rows_of("mlp/2", {"mlp": 5})
    (5, 3)
    """
    name, _, ranks = rows.partition("/")
    return -(-numbers[name] // int(ranks)) if ranks else numbers[name]


def over(rows: str, cost: RowsCost, per_row: int = 1) -> Step:
    """Return the step that runs a formula over the rows of a name, so many times in each."""
    if "/" in rows:
        return lambda numbers: cost(rows_of(rows, numbers) * per_row, numbers["count"])
    if per_row > 1:
        return lambda numbers: cost(numbers[rows] * per_row, numbers["count"])
    return lambda numbers: cost(numbers[rows], numbers["count"])
