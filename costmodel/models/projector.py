"""The projector between vision features and the language model: two linear layers with an activation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProjectorConfig:
    """A two-layer projector.

    Attributes:
        in_features: width of the features: the tower's width times the layers that are read.
        hidden_features: width between the two layers.
        out_features: width of the language model.
        bias: whether both layers have a bias.
        activation: between the two.

    >>> ProjectorConfig(1024, 4096, 4096, True, "gelu").parameters  # 4096 (1024 + 4096 + 2)
    20979712
    """

    in_features: int
    hidden_features: int
    out_features: int
    bias: bool
    activation: str

    @property
    def parameters(self) -> int:
        """Both matrices and their biases."""
        products = self.hidden_features * (self.in_features + self.out_features)
        return products + self.bias * (self.hidden_features + self.out_features)
