"""A LLaVA's language model, and what its tower's class token looks at, written out by hand.

The reference that methods in a model are compared with: float64, plain tensors. It shares no code with
`token_reduction.apply` and uses none of the model's.
"""

from __future__ import annotations

import torch


class Hand:
    """A Llama or Qwen2 language model with its head, one sequence, float64, no shared code.

    `keys` and `values` hold one [heads, tokens, e] per layer.
    """

    def __init__(self, model):
        self.model = model
        self.config = model.config.text_config
        self.heads = self.config.num_attention_heads
        self.kv_heads = self.config.num_key_value_heads
        self.dim = self.config.hidden_size // self.heads
        self.keys = [None] * self.config.num_hidden_layers
        self.values = [None] * self.config.num_hidden_layers
        self.entering = []

    def embed(self, ids):
        return self.model.model.language_model.embed_tokens.weight.double()[ids]

    def _norm(self, module, x):
        scale = (x.square().mean(-1, keepdim=True) + self.config.rms_norm_eps).rsqrt()
        return module.weight.double() * (x * scale)

    @staticmethod
    def _linear(module, x):
        out = x @ module.weight.double().T
        return out if module.bias is None else out + module.bias.double()

    def _rope(self, x, positions):
        base = self.config.rope_parameters["rope_theta"]
        rates = base ** (-torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        angle = positions.double().unsqueeze(-1) * rates
        cos, sin = angle.cos(), angle.sin()
        first, second = x[..., : self.dim // 2], x[..., self.dim // 2 :]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def project(self, number, x, positions):
        """Rotated queries and keys, and values, of what enters a layer: [heads, tokens, e]."""
        layer = self.model.model.language_model.layers[number]
        attention = layer.self_attn
        h = self._norm(layer.input_layernorm, x)

        def split(module):
            return self._linear(module, h).view(len(x), -1, self.dim).transpose(0, 1)

        q, k, v = split(attention.q_proj), split(attention.k_proj), split(attention.v_proj)
        share = self.heads // self.kv_heads
        k, v = k.repeat_interleave(share, 0), v.repeat_interleave(share, 0)
        return self._rope(q, positions), self._rope(k, positions), v

    def layer(self, number, x, positions, after_attention=None):
        """One layer on new tokens; `after_attention(weights)` may name the rows that go on."""
        layer = self.model.model.language_model.layers[number]
        self.entering.append(len(x))
        q, k, v = self.project(number, x, positions)
        if self.keys[number] is not None:
            k = torch.cat((self.keys[number], k), dim=1)
            v = torch.cat((self.values[number], v), dim=1)
        self.keys[number], self.values[number] = k, v
        old = k.shape[1] - len(x)
        hidden = torch.arange(k.shape[1]) > torch.arange(len(x)).unsqueeze(-1) + old
        logits = (q @ k.transpose(1, 2)) * self.dim**-0.5
        weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
        mixed = (weights @ v).transpose(0, 1).reshape(len(x), -1)
        if after_attention is not None:
            rows = after_attention(weights)
            if rows is not None:
                mixed, x, positions = mixed[rows], x[rows], positions[rows]
        x = x + self._linear(layer.self_attn.o_proj, mixed)
        h = self._norm(layer.post_attention_layernorm, x)
        gate = torch.nn.functional.silu(self._linear(layer.mlp.gate_proj, h))
        return x + self._linear(layer.mlp.down_proj, gate * self._linear(layer.mlp.up_proj, h)), \
            positions, weights  # fmt: skip

    def logits(self, x):
        h = self._norm(self.model.model.language_model.norm, x[-1])
        return h @ self.model.lm_head.weight.double().T

    def generate(
        self, embeddings, tokens, *, before_layer=None, after_attention=None, renumber=False
    ):
        """Greedy tokens and the first logits.

        before_layer(number, x, weights of the layer before, positions) and
        after_attention(number, weights) may name the rows that go on; before_layer may also give
        the rows themselves. With `renumber`, positions count on without gaps, in every layer.
        """
        positions = torch.arange(len(embeddings))
        x, weights = embeddings, None
        for number in range(self.config.num_hidden_layers):
            if before_layer is not None:
                rows = before_layer(number, x, weights, positions)
                if isinstance(rows, torch.Tensor):
                    x, positions = rows, None
                elif rows is not None:
                    x, positions = x[rows], positions[rows]
                if renumber:
                    positions = torch.arange(len(x))
            hook = None
            if after_attention is not None:
                hook = lambda w, n=number: after_attention(n, w)  # noqa: E731
            x, positions, weights = self.layer(number, x, positions, hook)
        self.leaving = len(x)
        first = out = self.logits(x)
        answer = [int(out.argmax())]
        place = len(embeddings)
        held = [keys.shape[1] for keys in self.keys]
        behind = [place - length if renumber else 0 for length in held]
        while len(answer) < tokens:
            x = self.embed(torch.tensor([answer[-1]]))
            for number in range(self.config.num_hidden_layers):
                x, _, _ = self.layer(number, x, torch.tensor([place - behind[number]]))
            answer.append(int(self.logits(x).argmax()))
            place += 1
        return answer, first


class TowerView:
    """Class attention per head and keys of one layer, and the features, from the tower's states."""

    def __init__(self, tower, pixels, depth=-2):
        with torch.no_grad():
            states = tower(pixels, output_hidden_states=True).hidden_states
        layer = tower.encoder.layers[depth]
        entering = states[depth - 1] if depth < 0 else states[depth]
        normed = layer.layer_norm1(entering).double()

        def heads(projection):
            out = normed @ projection.weight.double().T + projection.bias.double()
            return out.view(*out.shape[:2], 4, -1).transpose(1, 2)

        q, k = heads(layer.self_attn.q_proj), heads(layer.self_attn.k_proj)
        logits = q[:, :, :1] @ k.transpose(-1, -2) * k.shape[-1] ** -0.5
        self.row = logits.softmax(-1)[:, :, 0]
        self.metric = k.mean(1)
        self.features = states[-2].double()
