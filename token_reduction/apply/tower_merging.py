"""ToMe and CrossGET in a vision layer: similar tokens become one.

ToMe lets the layer's attention run as the model is set, with log(size) as a bias once sizes differ.
CrossGET looks at the attention of all tokens, so its attention is written out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hardware_specs.errors import InvalidFileError
from hardware_specs.files.reading import regular_file, show_path
from token_reduction.apply.anatomy import feature_depth
from token_reduction.apply.inside_tower import Stream, attend
from token_reduction.apply.llm_attention import split_heads
from token_reduction.apply.tower_layer import LayerStep, project, scores
from token_reduction.crossget import crossget
from token_reduction.observation import observed
from token_reduction.tome import merges_for_keep, parse_r, proportional_bias, tome

if TYPE_CHECKING:
    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord
    from token_reduction.registry import Method


class _Merging(LayerStep):
    """Methods that merge a number of tokens in every layer."""

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        self.merges: list[int] = []

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Fix how many pairs each layer merges."""
        tower = parts.towers[0]
        self.merges = merges_per_layer(self.method, parts, tower)
        self.layers = range(len(self.merges))
        super().attach(parts, patches)


class TokenMerging(_Merging):
    """ToMe."""

    needs_class_token = False

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        self._keys: Tensor | None = None
        self._has_class = True

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Watch the keys of every layer."""
        super().attach(parts, patches)
        self._has_class = all(tower.has_class for tower in parts.towers)

        def saw_keys(_module: Any, _args: Any, output: Tensor) -> None:
            self._keys = output

        for tower in parts.towers:
            for layer in tower.layers:
                attention: Any = layer.self_attn
                patches.after(attention.k_proj, saw_keys)

    def run(
        self, layer: Any, number: int, hidden: Tensor, stream: Stream, call: dict[str, Any]
    ) -> Tensor:
        """Attend in proportion to size, then merge the most similar pairs."""
        bias = None
        if self.method.options["proportional"] and stream.size is not None:
            with observed("reduction"):
                bias = proportional_bias(stream.size).to(hidden.dtype)
        hidden = hidden + attend(layer, hidden, bias, call)
        if not self.merges[number]:
            return hidden
        with observed("reduction"):
            keys, self._keys = self._keys, None
            assert keys is not None  # noqa: S101  (the attention just ran)
            metric = split_heads(keys, layer.self_attn.head_dim).mean(dim=1)
            merged = tome(
                hidden,
                metric,
                self.merges[number],
                size=stream.size,
                class_token=self._has_class,
                trace=self.trace,
            )
            stream.size = merged.sizes
            stream.follow(merged.sources)
        return merged.tokens


class CrossGuided(_Merging):
    """CrossGET."""

    def __init__(self, method: Method, record: ReductionRecord, *, trace: bool) -> None:
        super().__init__(method, record, trace=trace)
        self._cross: Tensor | None = None

    def attach(self, parts: Parts, patches: Patches) -> None:
        """Load the cross tokens, or make random ones and say so."""
        super().attach(parts, patches)
        config: Any = parts.towers[0].module.config
        path: Any = self.method.options["weights"]
        shape = (len(parts.towers[0].layers), int(config.hidden_size))
        if path is None:
            generator = torch.Generator().manual_seed(0)
            self._cross = 0.02 * torch.randn(shape, generator=generator)
            self.record.notes.append(
                "crossget runs with random cross tokens: its published results need learned ones, "
                "from a safetensors file given as weights=..."
            )
        else:
            self._cross = load_cross_tokens(Path(path), shape)

    def begin(self, hidden: Tensor, stream: Stream) -> Tensor:
        """Append the cross token, which starts as a copy of the class token."""
        assert self._cross is not None  # noqa: S101  (attached before it ran)
        self._cross = self._cross.to(hidden)
        hidden = torch.cat((hidden, hidden[:, :1]), dim=1)
        return super().begin(hidden, stream)

    def run(
        self,
        layer: Any,
        number: int,
        hidden: Tensor,
        stream: Stream,
        call: dict[str, Any],  # noqa: ARG002
    ) -> Tensor:
        """Add the layer's cross token, attend in proportion to size, merge on the graph."""
        assert self._cross is not None  # noqa: S101
        with observed("reduction"):
            guide = hidden[:, -1:].detach() + self._cross[number]
            hidden = torch.cat((hidden[:, :-1], guide), dim=1)
            bias = None if stream.size is None else proportional_bias(stream.size).to(hidden.dtype)
        queries, keys, values = project(layer, hidden)
        weights = scores(layer, queries, keys, bias).to(hidden.dtype)
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        hidden = hidden + layer.self_attn.out_proj(mixed)
        with observed("reduction"):
            merged = crossget(
                hidden, keys.mean(dim=1), weights.mean(dim=1), self.merges[number],
                size=stream.size, trace=self.trace,
            )  # fmt: skip
            stream.size = merged.sizes
            stream.follow(merged.sources)
        return merged.tokens


def merges_per_layer(method: Method, parts: Parts, tower: Tower) -> list[int]:
    """Pairs that ToMe or CrossGET merges in each layer of a tower.

    `keep` spreads the merges over the layers that run before the features are read and leaves the
    others alone; without it every layer merges r, as in the authors' programs.

    Args:
        method: the request.
        parts: the model.
        tower: its tower.

    Raises:
        InvalidInputError: a keep out of reach, or a list of r that does not fit.
    """
    layers = len(tower.layers)
    if method.keep is None:
        r: Any = method.options["r"]
        inflect: Any = method.options.get("inflect", 0.0)
        return parse_r(layers, r, inflect)
    depth = feature_depth(parts, tower)
    merges = merges_for_keep(method.keep, patches=tower.patches, num_layers=depth)
    return merges + [0] * (layers - depth)


def load_cross_tokens(path: Path, shape: tuple[int, int]) -> Tensor:
    """Read CrossGET's learned tokens, [layers, width], from a safetensors file.

    Args:
        path: the file; the tensor's name ends in `cross_image`, its shape is [1, layers, width] or
            [layers, width].
        shape: what this tower needs.

    Raises:
        InvalidFileError: no file, no such tensor, or another shape.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular_file(path, "weights file"), framework="pt") as file:
            names = list(file.keys())
            found = [name for name in names if name.endswith("cross_image")]
            if len(found) != 1:
                raise InvalidFileError(
                    f"{path} holds {len(found)} tensors named ...cross_image, and crossget needs "
                    f"one; it holds: {', '.join(names[:8])}"
                )
            tokens: Tensor = file.get_tensor(found[0])
    except (OSError, SafetensorError) as error:
        raise InvalidFileError(
            f"{show_path(path)} is no readable safetensors file: {error}"
        ) from error
    if tokens.ndim == 3 and tokens.shape[0] == 1:
        tokens = tokens[0]
    if tuple(tokens.shape) != shape:
        raise InvalidFileError(
            f"{path} holds cross tokens {tuple(tokens.shape)}, this tower needs {shape}"
        )
    return tokens
