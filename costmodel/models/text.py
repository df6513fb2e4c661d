"""The language model: a decoder by the numbers people ask for, and as the blocks that it computes."""

from __future__ import annotations

from dataclasses import dataclass, field

from costmodel.blocks import Block, Embed, Project, Stack
from hardware_specs.showing import brief


@dataclass(frozen=True, slots=True)
class TextConfig:
    """A language model, by the numbers that its cost depends on.

    Attributes:
        family: the `model_type` of the Hugging Face config, such as `llama`.
        hidden_size: width d.
        intermediate_size: FFN width f; the MLP has three d x f matrices (gate, up, down).
        num_layers: layers l.
        num_heads: attention heads h.
        num_kv_heads: KV heads k; fewer than h is grouped-query attention.
        head_dim: head dim e.
        vocab_size: vocabulary v.
        qkv_bias: whether the q, k and v projections have a bias.
        output_bias: whether the attention's output projection has a bias.
        mlp_bias: whether the MLP's three projections have a bias.
        tie_embeddings: whether the head shares the embedding's weights.
        max_positions: positions the model was made for.
        activation: the MLP's activation, such as `silu`.
        norm_eps: the epsilon of RMSNorm.
        sliding_window: keys that a query of a sliding layer sees at most; None where no layer slides.
        qk_norm: whether every head of q and k is normed before the rotation.
        experts: experts of a layer's MLP; 0 where it has one MLP for all tokens.
        chosen_experts: experts that a token goes through.
        expert_size: FFN width of an expert.
        one_qkv: whether q, k and v are one product in the library too, and gate and up another.
        offset_norms: whether the norms' scales are stored less one.
        sandwich: whether a norm follows each branch as well.
        both_ways: tokens of an image that see each other whatever their order; 0 for none.
        deepstack: layers behind which features of the tower are added, the first ones.
        embedding: the look-up of tokens.
        after_embedding: what is done to what it gives, where ranks share the table.
        stack: the layers, what runs before them, and the final norm after them.
        head: the product that gives logits.
        beyond: what is done to the logits.

    >>> from costmodel.models import load_model
    >>> text = load_model("llama-2-7b").text
    >>> text.layer_parameters  # 4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096
    202383360
    >>> text.kv_values_per_token  # K and V x 32 layers x 32 heads x 128
    262144
    """

    family: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    tie_embeddings: bool
    max_positions: int
    activation: str
    norm_eps: float
    sliding_window: int | None = None
    qk_norm: bool = False
    experts: int = 0
    chosen_experts: int = 0
    expert_size: int = 0
    deepstack: int = 0
    one_qkv: bool = False
    offset_norms: bool = False
    sandwich: bool = False
    both_ways: int = 0
    embedding: Embed = field(default=Embed("", 0, 0, ""), repr=False)
    after_embedding: tuple[Block, ...] = field(default=(), repr=False)
    stack: Stack = field(default=Stack((), (), (), ()), repr=False)
    head: Project = field(default=Project("", 0, (), ""), repr=False)
    beyond: tuple[Block, ...] = field(default=(), repr=False)

    __repr__ = brief

    @property
    def windows(self) -> tuple[int, ...]:
        """The sliding window of every layer, 0 for layers that see all.

        >>> from costmodel.models import load_model
        >>> set(load_model("llama-2-7b").text.windows)
        {0}
        """
        each = self.stack.windows
        return tuple(each[kind] for kind in self.stack.pattern)

    @property
    def sliding_layers(self) -> int:
        """How many layers slide."""
        return sum(window > 0 for window in self.windows)

    @property
    def embedding_parameters(self) -> int:
        """The token embedding: v d."""
        return self.embedding.parameters

    @property
    def layer_parameters(self) -> int:
        """One decoder layer, the mean one where they differ."""
        return self.stack.layer_parameters // self.num_layers

    @property
    def body_parameters(self) -> int:
        """Embedding, layers and final norm, without the head."""
        return self.embedding.parameters + self.stack.parameters

    @property
    def head_parameters(self) -> int:
        """The language-model head: v d, or 0 when it shares the embedding's weights."""
        return self.head.parameters

    @property
    def parameters(self) -> int:
        """All parameters, those of the head included."""
        return self.body_parameters + self.head_parameters

    @property
    def kv_values_per_token(self) -> int:
        """Numbers of K and V cached per token over all layers: 2 l k e."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim
