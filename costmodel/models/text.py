"""The language model: a decoder of gated-MLP layers (Llama, Mistral, Qwen2), its shape and its parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextConfig:
    """A language model, by the numbers that its cost depends on.

    Attributes:
        family: `llama`, `mistral` or `qwen2`, the `model_type` of the Hugging Face config.
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
        sliding_window: keys a layer attends to at most, or None. Told, not counted: every cost here
            is that of full attention, exact for prompts up to the window.

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

    @property
    def embedding_parameters(self) -> int:
        """The token embedding: v d."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """One decoder layer: q and o (2 d h e), k and v (2 d k e), MLP (3 d f), norms (2 d), biases."""
        d, f = self.hidden_size, self.intermediate_size
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        biases = self.qkv_bias * (q + 2 * kv) + self.output_bias * d + self.mlp_bias * (2 * f + d)
        return 2 * d * q + 2 * d * kv + 3 * d * f + 2 * d + biases

    @property
    def body_parameters(self) -> int:
        """Embedding, layers and final norm, without the head."""
        return (
            self.embedding_parameters + self.num_layers * self.layer_parameters + self.hidden_size
        )

    @property
    def head_parameters(self) -> int:
        """The language-model head: v d, or 0 when it shares the embedding's weights."""
        return 0 if self.tie_embeddings else self.embedding_parameters

    @property
    def parameters(self) -> int:
        """All parameters, those of the head included."""
        return self.body_parameters + self.head_parameters

    @property
    def kv_values_per_token(self) -> int:
        """Numbers of K and V cached per token over all layers: 2 l k e."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim
