"""The bridge between vision features and the language model: its widths, and what it computes."""

from __future__ import annotations

from dataclasses import dataclass, field

from costmodel.blocks import Activate, Block, dense, parameters


@dataclass(frozen=True, slots=True)
class ProjectorConfig:
    """A bridge whose rows are the projected tokens.

    Attributes:
        in_features: width of a row at its entry: the tower's width times the layers that are read.
        hidden_features: width between its two linear layers.
        out_features: width of the language model.
        bias: whether its linear layers have a bias.
        activation: between the two.
        blocks: what it computes, one kernel each under every plan.
        by_plan: whether the plan says how many kernels a block takes instead.
    """

    in_features: int
    hidden_features: int
    out_features: int
    bias: bool
    activation: str
    blocks: tuple[Block, ...] = field(repr=False)
    by_plan: bool = False

    @property
    def parameters(self) -> int:
        """Those of its blocks."""
        return parameters(self.blocks)


def two_layers(k: int, d: int, *, bias: bool, activation: str) -> ProjectorConfig:
    """Return the bridge of LLaVA-1.5 and its successors: two linear layers with an activation.

    From k, the width of the features, to d, that of the language model.

    >>> two_layers(1024, 4096, bias=True, activation="gelu").parameters  # 4096 (1024 + 4096 + 2)
    20979712
    """
    blocks = (
        dense("linear_1", k, d, "projected", bias=bias),
        Activate("gelu", d, "projected", activation),
        dense("linear_2", d, d, "projected", bias=bias),
    )
    return ProjectorConfig(k, d, d, bias, activation, blocks)
