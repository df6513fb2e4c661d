"""FastVID: what stands out in each frame, and anchors of each scene that the rest joins.

Source: "FastVID: Dynamic Density Pruning for Fast Video Large Language Models" (Shen et al., NeurIPS 2025,
arXiv 2503.11187) and its program LunarShen/FastVID.
Place: after the projector, on clips; images and clips of one frame are left alone. Needs a feature of each
frame and how much the tower looks at each token: from SigLIP's pooling head on LLaVA-OneVision, whose
checkpoints leave it out (`head=` names a file that has it; it is random without, which costs the same), and
on towers of native resolution from the mean of a frame's tokens and the tower's last layer, as the
program's Qwen2.5-VL form does. Tokens keep their places on three axes; an anchor stays where it was.

Complexity, t frames of p tokens, d width: t/4*p^2*d for the densities, and the tokens of a scene against its
anchors. Scenes depend on the data, so where they end is read back once; the loop is over scenes. The
program adds noise of 1e-6 to the densities; here equal ones keep their order. A scene's anchors are never
more than a frame has tokens that are not salient, where the program fails.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.fastvid import (
    CONTEXT,
    EVERY,
    HEAD,
    NEIGHBOURS,
    OWN,
    RATIO,
    SEGMENTS,
    THRESHOLD,
    anchors_of,
    split_frame,
)
from hardware_specs.errors import InvalidFileError
from token_reduction.apply.class_attention import pooled_frames, watch_features
from token_reduction.apply.llm_attention import split_heads
from token_reduction.apply.received_attention import reduce_weighed_clips
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.density import peak_scores
from token_reduction.tokens.reduced import Reduced
from token_reduction.tokens.selection import (
    bottom_indices,
    complement,
    take_tokens,
    top_indices,
    unit_rows,
)
from token_reduction.tokens.weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.crops import Item
    from token_reduction.apply.places import Host


def fastvid(
    frames: Tensor,
    features: Tensor,
    attention: Tensor,
    keep: float = RATIO,
    *,
    segments: int = SEGMENTS.default,
    threshold: float = THRESHOLD.default,
    context: float = CONTEXT.default,
    every: int = EVERY.default,
    own: float = OWN.default,
) -> Reduced:
    """Keep salient tokens, and anchors that the others of their scene are averaged into.

    Formula: a scene ends behind the `segments` - 1 frames least similar to the next, and behind those whose
    cosine is below `threshold`. Of K = int(keep p), s = K - int(context K) have the largest attention of
    their frame. The scene's frames 0, every, 2 every, ... from its end have as many anchors as all its frames
    would, by density peaks among the tokens that are not salient. Each of the scene's tokens that is not
    salient, anchors included, joins the anchor with the largest cosine: w anchor + (1 - w) mean of c joined,
    w = max(1 / (c + 1), own).

    Args:
        frames: [t, p, d] tokens of t frames.
        features: [t, c] one feature of each frame.
        attention: [t, p] how much each token is looked at.
        keep: share of a frame's tokens, rounded down.
        segments: scenes at least.
        threshold: cosine of neighbours below which a scene ends.
        context: share of K for anchors.
        every: frames for one with anchors.
        own: least weight of an anchor itself.

    Returns:
        Reduced of the t * p tokens; kept_indices ascending, anchors among them.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep that leaves no token of a frame.

    >>> clip = torch.tensor([[[4.0, 0.0], [1.0, 0.1], [0.0, 1.0]]] * 2)
    >>> looked = torch.tensor([[0.9, 0.0, 0.1]] * 2)
    >>> fastvid(clip, torch.ones(2, 1), looked, 0.7, segments=1, context=0.5).kept_indices.tolist()
    [0, 3, 4, 5]
    """
    if frames.ndim != 3 or attention.shape != frames.shape[:2] or (
        features.ndim != 2 or len(features) != len(frames) or not frames.shape[0] * frames.shape[1]
    ):  # fmt: skip
        takes = "the tokens of frames [t, p, d], their features [t, c] and attention [t, p]"
        raise misfit("fastvid", takes, frames, features, attention)
    count, each, _ = frames.shape
    salient, anchors = (int(part) for part in split_frame(each, keep, context))
    with torch.no_grad():
        norms = frames.norm(dim=-1, keepdim=True)
        require_finite("fastvid", frames=norms, features=features, attention=attention)
        best = top_indices(attention, salient)
        starts = torch.arange(0, count * each, each, device=frames.device).unsqueeze(-1)
        kept, tokens = [(best + starts).flatten()], [take_tokens(frames, best).flatten(0, 1)]
        if anchors:
            others = complement(best, each)
            left = take_tokens(frames, others)
            scenes = _scenes(features, segments, threshold)
            ranges = [range(scene.stop - 1, scene.start - 1, -every) for scene in scenes]
            # Only frames that have anchors are ranked, those of all scenes at once.
            chosen = [frame for some in ranges for frame in some]
            ranked = torch.tensor(chosen, device=frames.device)
            there = left[ranked]
            peaks = top_indices(peak_scores(there, NEIGHBOURS), each - salient)
            first = 0
            for scene, some in zip(scenes, ranges, strict=True):
                block = slice(first, first := first + len(some))
                length = scene.stop - scene.start
                _, many = anchors_of(length, anchors, every, each - salient)
                best, frame = peaks[block, :many], ranked[block]
                kept.append((others[frame].gather(-1, best) + starts[frame]).flatten())
                rows = take_tokens(there[block], best).flatten(0, 1)
                tokens.append(_anchored(left[scene].flatten(0, 1), rows, own))
        places = torch.cat(kept)
        order = places.argsort()
    return Reduced(torch.cat(tokens)[order], kept_indices=places[order], scores=attention.flatten())


def _scenes(features: Tensor, segments: int, threshold: float) -> list[slice]:
    """Cut a clip where neighbouring frames are least alike, and where they are not alike."""
    count = len(features)
    unit = unit_rows(features.float())
    alike = (unit[1:] * unit[:-1]).sum(dim=-1)
    ends = alike < threshold
    ends = ends.index_fill(0, bottom_indices(alike, min(segments, count) - 1), True)
    bounds = [0, *(place + 1 for place, end in enumerate(ends.tolist()) if end), count]
    return [slice(*pair) for pair in pairwise(bounds)]


def _anchored(tokens: Tensor, anchors: Tensor, own: float) -> Tensor:
    """Anchors [a, d] with what joins them, of a scene's tokens [m, d]."""
    # How long a token is has no part in which anchor is most similar to it.
    nearest = (tokens @ unit_rows(anchors).T).argmax(dim=-1)
    share = torch.nn.functional.one_hot(nearest, len(anchors)).to(tokens.dtype)
    count = share.sum(dim=0).unsqueeze(-1)
    mean = share.T @ tokens / count.clamp_min(1)
    weight = (1 / (count + 1)).clamp_min(own)
    return weight * anchors + (1 - weight) * mean


#: What a file with SigLIP's pooling head has, by the ends of its tensors' names.
_HEAD = (
    "head.probe", "head.attention.in_proj_weight", "head.attention.in_proj_bias",
    "head.attention.out_proj.weight", "head.attention.out_proj.bias", "head.layernorm.weight",
    "head.layernorm.bias", "head.mlp.fc1.weight", "head.mlp.fc1.bias", "head.mlp.fc2.weight",
    "head.mlp.fc2.bias",
)  # fmt: skip


class PoolingHead:
    """SigLIP's pooling head: a learned query looks at the patches of a frame.

    Args:
        config: of the tower.
        path: a file with its weights; None for random ones.

    Raises:
        InvalidFileError: the file does not hold them, or for another tower.
    """

    def __init__(self, config: Any, path: str | None) -> None:
        c, m = int(config.hidden_size), int(config.intermediate_size)
        self._heads, self._slack = int(config.num_attention_heads), float(config.layer_norm_eps)
        shapes = [
            (1, 1, c),
            (3 * c, c),
            (3 * c,),
            (c, c),
            (c,),
            (c,),
            (c,),
            (m, c),
            (m,),
            (c, m),
            (c,),
        ]
        if path is None:
            made = torch.Generator().manual_seed(0)
            self._weights = [
                torch.randn(shape, generator=made) * (shape[-1] ** -0.5) for shape in shapes
            ]
            return
        self._weights = read_tensors("fastvid", Path(path), *_HEAD)
        found = [tuple(tensor.shape) for tensor in self._weights]
        if found != shapes:
            wrong = next(place for place, shape in enumerate(shapes) if found[place] != shape)
            raise InvalidFileError(
                f"{path} holds a pooling head with {_HEAD[wrong]} {found[wrong]}; this tower needs "
                f"{shapes[wrong]}"
            )

    def __call__(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """From patches [t, n, c] to features [t, c] and what the query looks at, [t, n]."""
        self._weights = [tensor.to(patches) for tensor in self._weights]
        probe, into, bias, out, out_bias, scale, shift, fc1, fc1_bias, fc2, fc2_bias = self._weights
        linear, c = torch.nn.functional.linear, patches.shape[-1]
        e = c // self._heads
        query = split_heads(linear(probe, into[:c], bias[:c]), e).expand(len(patches), -1, -1, -1)
        both = linear(patches, into[c:], bias[c:])
        keys, values = (split_heads(part, e) for part in both.chunk(2, dim=-1))
        row = (query @ keys.transpose(-1, -2) * e**-0.5).softmax(dim=-1, dtype=torch.float32)
        mixed = (row.to(values) @ values).transpose(1, 2).reshape(len(patches), c)
        pooled = linear(mixed, out, out_bias)
        normed = torch.nn.functional.layer_norm(pooled, (c,), scale, shift, self._slack)
        inner = torch.nn.functional.gelu(linear(normed, fc1, fc1_bias), approximate="tanh")
        return pooled + linear(inner, fc2, fc2_bias), row[:, :, 0].mean(dim=1)


def plug(host: Host) -> None:
    """Reduce each clip behind the projector.

    Raises:
        InvalidFileError: a file without the pooling head of the tower.
    """
    method, parts = host.method, host.parts
    settings = {
        option.name: option.of(method) for option in (SEGMENTS, THRESHOLD, CONTEXT, EVERY, OWN)
    }
    keep = float(method.settled_keep)

    def reduced(item: Item, features: Tensor, attention: Tensor) -> Reduced:
        return fastvid(item.by_frame, features, attention, keep, **settings)  # type: ignore[arg-type]

    def pooled() -> Callable[[Item], Reduced]:
        tower, path = parts.towers[0], HEAD.of(method)
        head = PoolingHead(tower.module.config, path)
        if path is None:
            host.record.notes.append(
                f"{method.name} runs with a random pooling head: its published results need SigLIP's, from "
                "a safetensors file given as head=..."
            )
        patches = watch_features(host)

        def of_pooled(item: Item) -> Reduced:
            start = item.number * item.frames
            features, looked = head(patches[0][start : start + item.frames])
            return reduced(item, features, pooled_frames(looked, tower.side))

        return of_pooled

    def native(item: Item, looked: Tensor) -> Reduced:
        return reduced(item, item.by_frame.mean(dim=1), looked)

    reduce_weighed_clips(host, native, pooled)
