"""The vision tower by the numbers people ask for, and as the blocks that it computes."""

from __future__ import annotations

from dataclasses import dataclass, field

from costmodel.blocks import Stack
from hardware_specs.showing import brief


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """A vision transformer, by the numbers that its cost depends on.

    Attributes:
        family: such as `clip` or `siglip`.
        hidden_size: width c.
        intermediate_size: FFN width f.
        num_layers: layers l.
        num_heads: attention heads h.
        image_size: side of the square crop in pixels.
        patch_size: side of a patch in pixels.
        num_channels: colour channels.
        has_cls: whether a class token precedes the patches.
        patch_bias: whether the patch convolution has a bias.
        pre_norm: whether a norm precedes the first layer.
        post_norm: whether a norm follows the last layer (over the class token where there is one).
        activation: the MLP's activation.
        copies: towers of this shape in the model (Video-LLaVA: one for images, one for video).
        feature_layers: indices into the hidden states whose features are read: 0 is the embedding,
            l the last layer, negative from the end.
        feature_select: `default` drops the first token of the features, `full` keeps all.
        merge: patches along one side of what becomes a token behind the tower.
        tubelet: frames of a patch; an image is taken that often.
        window: patches along one side of the windows that most layers attend in; 0 for none.
        deepstack: layers of it whose features the language model's first layers get.
        native: whether an image keeps its own resolution: `image_size` is then that of the default
            image, and an image's patches are what its geometry says.
        stack: one tower's layers, with what comes before and after them.

    >>> from costmodel.models import load_model
    >>> vision = load_model("llava-1.5-7b").vision
    >>> vision.tokens, vision.selected_tokens  # 24 x 24 patches, with and without the class token
    (577, 576)
    >>> vision.layer_parameters  # 4 (1024^2 + 1024) + 2 x 1024 x 4096 + 4096 + 1024 + 4 x 1024
    12596224
    """

    family: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    num_channels: int
    has_cls: bool
    patch_bias: bool
    pre_norm: bool
    post_norm: bool
    activation: str
    copies: int = 1
    feature_layers: tuple[int, ...] = (-1,)
    feature_select: str = "full"
    merge: int = 1
    tubelet: int = 1
    window: int = 0
    deepstack: int = 0
    native: bool = False
    stack: Stack = field(default=Stack((), (), (), ()), repr=False)

    __repr__ = brief

    @property
    def head_dim(self) -> int:
        """Head dim e = c / h."""
        return self.hidden_size // self.num_heads

    @property
    def grid(self) -> int:
        """Patches along one side of a crop."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of one crop."""
        return self.grid**2

    @property
    def patch_pixels(self) -> int:
        """Numbers that a patch is embedded from."""
        return self.num_channels * self.tubelet * self.patch_size**2

    @property
    def tokens(self) -> int:
        """Tokens that the tower's layers see per crop: patches and class token."""
        return self.patches + self.has_cls

    @property
    def selected_tokens(self) -> int:
        """Tokens per crop that are read as features."""
        return self.tokens - (self.feature_select == "default")

    @property
    def feature_layer(self) -> int:
        """The deepest layer whose features are read, as the config writes it (negative from the end)."""
        return max(self.feature_layers, key=lambda i: i if i >= 0 else self.num_layers + 1 + i)

    @property
    def deepest(self) -> int:
        """How many layers run before the deepest features are read."""
        layer = self.feature_layer
        return self.num_layers + 1 + layer if layer < 0 else layer

    def executed_layers(self, vision_layers: str) -> int:
        """Layers that run: all of them (`executed`), or up to the features that are read (`useful`).

        `vision_feature_layer=-2` reads the output of the last layer but one; `transformers` runs the
        last layer all the same, serving engines do not.
        """
        return self.num_layers if vision_layers == "executed" else self.deepest

    @property
    def layer_parameters(self) -> int:
        """One layer, the mean one where they differ."""
        return self.stack.layer_parameters // self.num_layers

    @property
    def tower_parameters(self) -> int:
        """One tower: patch convolution, class token, positions, norms, layers, pooling head."""
        return self.stack.parameters

    @property
    def parameters(self) -> int:
        """All towers."""
        return self.copies * self.tower_parameters
