"""CDPruner: tokens that are relevant to the question and different from each other.

Source: "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs"
(Zhang et al., 2025) and its program Theia-4869/CDPruner.
Place: after the projector. Needs CLIP's joint embedding of patches and question, so its text tower.
The language model sees a plain shorter sequence in spatial order.

The form of OpenVINO GenAI (`variant="split"`, `split_cdpruner`) acts on what the first language-model layer
sees, on any model: an image's tokens in two halves, relevance from the embeddings of all text of the
sequence (the engine takes the instruction's alone, which a sequence does not tell apart). Every run of
visual tokens is a list of its own: an image, a clip (the engine: each of its frames), or a pair of frames
where times stand between them.

Complexity, n tokens of width d, k kept: n^2*d for the kernel, then k dependent picks that update n values
with up to k rows: k^2*n/2. No length depends on the data. Everything is float32, as in the program. The
kernel compares the projected tokens, as the program does. Relevance is brought to 0..1 in each crop; the
program does so over all crops of a forward together, which differs for tiles alone. In a model, CLIP's
joint space, which no LLaVA checkpoint holds, comes from a file: the projection into it, and the question's
embedding as CLIP's text tower gives it, one question for all images of a forward. Without a file both are
random, which costs the same and picks patches without meaning; the record says so. Past as many picks as
the tokens are wide the kernel has no rank left. Where the question tells no tokens apart, diversity alone
decides (the program divides by zero).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.cdpruner import EMBEDDINGS, JOINT_WIDTH, QUESTIONS, even_count
from costmodel.methods.keep import resolve_keep
from hardware_specs.errors import InvalidFileError
from token_reduction.apply.class_attention import require_patches, watch_features
from token_reduction.apply.llm_policy import OneCut, images_of, stack_rows
from token_reduction.apply.places import Host, reduce_between_layers, reduce_crops
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.selection import complement, picked_tokens, unit_rows
from token_reduction.tokens.weights import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.apply.llm_tokens import Group
    from token_reduction.tokens.reduced import Reduced

_SLACK = 1e-6
# Squares of it, thousands of them summed, still fit float32.
_HUGE = 1e15
#: Share of relevance in the kernel of the halves, OpenVINO's default; diversity has the rest.
_WEIGHT = 0.5


def cdpruner(
    tokens: Tensor,
    image_embeds: Tensor,
    text_embeds: Tensor,
    keep: float,
) -> Reduced:
    """Greedy MAP of a determinantal point process conditioned on the question.

    Formula: rel = min-max of minus the mean cosine of patch and question; L = rel_i cos(x_i, x_j)
    rel_j; picks maximise det(L) one by one: argmax of the conditional variance, then
    var_j -= e_j^2 with e = (L[i] - sum of earlier e e[i]) / sqrt(var_i).

    Args:
        tokens: [..., n, d] what is kept from, and what the cosine is taken of.
        image_embeds: [..., n, c] patches in CLIP's joint space.
        text_embeds: [t, c] (or [..., t, c]) the question's embeddings there.
        keep: a count, or a ratio rounded to nearest.

    Returns:
        Reduced in spatial order, with selection_order and scores (the relevance).

    Raises:
        InvalidInputError: lengths that differ, NaN or infinity, a keep out of range.

    >>> x = torch.eye(3)
    >>> patches = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> cdpruner(x, patches, torch.tensor([[1.0, 0.0]]), 1).kept_indices.tolist()
    [2]
    """
    if image_embeds.shape[:-1] != tokens.shape[:-1] or (
        image_embeds.shape[-1] != text_embeds.shape[-1]
    ):
        takes = "tokens [..., n, d], image_embeds [..., n, c] and text_embeds [t, c]"
        raise misfit("cdpruner", takes, tokens, image_embeds, text_embeds)
    n = tokens.shape[-2]
    count = resolve_keep(keep, n)
    with torch.no_grad():
        unit, images, texts = (_unit(v) for v in (tokens, image_embeds, text_embeds))
        distance = -(images @ texts.transpose(-1, -2)).mean(dim=-1)
        require_finite("cdpruner", tokens=unit, embeddings=distance)
        relevance = _within_one(distance, slack=_SLACK)
        kernel = relevance.unsqueeze(-1) * (unit @ unit.transpose(-1, -2)) * relevance.unsqueeze(-2)
        picks = greedy_map(kernel, count)
    return picked_tokens(tokens, picks, scores=relevance)


def split_cdpruner(tokens: Tensor, texts: Tensor, keep: float) -> Reduced:
    """Pick from two halves of an image by what the language model's embeddings of the text say.

    Formula: the first n // 2 tokens and the others each have a kernel (1 + rel_i rel_j) / 2 cos(x_i, x_j),
    rel the mean cosine with the text brought to 0..1 within the half, or 1 without text; of a count made
    even each gives half.

    Args:
        tokens: [n, d] of one image, as the language model sees them.
        texts: [t, d] its embeddings of the text; t may be 0.
        keep: a count, or a ratio rounded to nearest; made even upwards.

    Returns:
        Reduced in spatial order, with selection_order: the first half's picks before the second's.

    Raises:
        InvalidInputError: shapes that do not fit, NaN or infinity, a keep out of range.

    >>> split_cdpruner(torch.eye(4), torch.tensor([[1.0, 0.0, 0.0, 2.0]]), 2).kept_indices.tolist()
    [0, 3]
    """
    if tokens.ndim != 2 or texts.ndim != 2 or texts.shape[-1] != tokens.shape[-1]:
        raise misfit("cdpruner", "tokens [n, d] and text embeddings [t, d]", tokens, texts)
    n = len(tokens)
    count = int(even_count(resolve_keep(keep, n), n))
    first, own = n // 2, count // 2
    with torch.no_grad():
        unit, text = _unit(tokens), _unit(texts)
        require_finite("cdpruner", tokens=unit, text=text)
        if n % 2:
            halves = [(unit[None, :first], own), (unit[None, first:], count - own)]
        else:
            halves = [(unit.view(2, first, -1), own)]
        picks = [greedy_map(_kernel_with_text(half, text), share) for half, share in halves]
        both = torch.cat(picks).unbind() if n % 2 == 0 else (picks[0][0], picks[1][0])
    return picked_tokens(tokens, torch.cat((both[0], both[1] + first)))


def _kernel_with_text(half: Tensor, text: Tensor) -> Tensor:
    """Kernel [c, n, n] of normalised tokens [c, n, d] and text [t, d]."""
    cosine = half @ half.transpose(-1, -2)
    if not len(text):
        # A cosine with itself, without its rounding: of equal tokens the first is picked.
        cosine.diagonal(dim1=-2, dim2=-1).fill_(1)
        return cosine
    relevance = _within_one((half @ text.T).mean(dim=-1), span_slack=_SLACK)
    both = (_WEIGHT * relevance).unsqueeze(-1) * relevance.unsqueeze(-2)
    return (both + (1 - _WEIGHT)) * cosine


def greedy_map(kernel: Tensor, count: int) -> Tensor:
    """Greedy picks [..., count] that maximise the determinant of a kernel [..., n, n].

    >>> greedy_map(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2).tolist()
    [1, 2]
    """
    n = kernel.shape[-1]
    stacked = kernel.reshape(-1, n, n)
    batch = len(stacked)
    tiny = torch.finfo(kernel.dtype).tiny
    variance = stacked.diagonal(dim1=-2, dim2=-1).clone()
    basis = stacked.new_zeros(count, batch, n)
    picks = torch.empty(count, batch, 1, dtype=torch.long, device=kernel.device)
    for step in range(count):
        picks[step] = pick = variance.argmax(dim=-1, keepdim=True)
        row = stacked.gather(1, pick.unsqueeze(-1).expand(-1, 1, n)).squeeze(1)
        earlier = basis[:step]
        own = earlier.gather(-1, pick.expand(step, batch, 1)).squeeze(-1)
        row = row - torch.einsum("tb,tbn->bn", own, earlier)
        # Past the kernel's rank (at most the features' width) only rounding noise is left to divide
        # by, so picks are arbitrary there, in the program too; the bound keeps them distinct.
        row = (row / variance.gather(-1, pick).clamp_min(tiny).sqrt()).clamp(-_HUGE, _HUGE)
        basis[step] = row
        variance = (variance - row.square()).scatter(-1, pick, float("-inf"))
    return picks.squeeze(-1).T.reshape(*kernel.shape[:-2], count)


def _within_one(mean: Tensor, *, slack: float = 0.0, span_slack: float = 0.0) -> Tensor:
    """Bring values to 0..1 in each row; where all are equal, to 1."""
    low, high = torch.aminmax(mean, dim=-1, keepdim=True)
    span = high - low
    return torch.where(span > _SLACK, (mean - low + slack) / (span + span_slack), 1.0)


def _unit(values: Tensor) -> Tensor:
    return unit_rows(values.to(torch.promote_types(values.dtype, torch.float32)))


class Halves(OneCut):
    """CDPruner in two halves, on what the first layer sees."""

    by_piece = True

    def __init__(self, method: Method, parts: Parts) -> None:
        super().__init__(method, parts, 0)

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Pick from every image of each sequence."""
        return stack_rows(self.method.name, [self._of_row(row, now, hidden) for row in group.rows])

    def _of_row(self, row: int, now: Prefill, hidden: Tensor) -> Tensor:
        states, spans = images_of(now, row, hidden)
        marks = torch.cat([torch.arange(start, start + count) for start, count in spans])
        outside = complement(marks, len(states)).to(hidden.device, non_blocking=True)
        texts, kept, before = states[outside], [], 0
        for start, count in spans:
            found = split_cdpruner(
                states[start : start + count], texts, self.method.settled_keep
            ).kept_indices
            assert found is not None  # noqa: S101  (it selects)
            kept.append(found + before)
            before += count
        return torch.cat(kept)


def plug(host: Host) -> None:
    """Prune the projected patches of every crop, by the joint space that a file holds.

    Raises:
        UnsupportedError: the tower is no CLIP.
        InvalidFileError: the file does not hold what it must, or for another tower.
    """
    if host.method.variant == "split":
        reduce_between_layers(host, Halves)
        return
    parts, name, keep = host.parts, host.method.name, host.method.settled_keep
    path = EMBEDDINGS.of(host.method)
    parts.require_class_token(name)
    parts.require_one_layer(name)
    config: Any = parts.towers[0].module.config
    width = int(config.hidden_size)
    if path is None:
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(JOINT_WIDTH, width, generator=generator) * width**-0.5
        question = torch.randn(QUESTIONS, JOINT_WIDTH, generator=generator)
        host.record.notes.append(
            f"{name} runs with a random joint space and question: its published results need CLIP's, "
            "from a safetensors file given as embeddings=..."
        )
    else:
        projection, question = load_joint_space(Path(path), width)
    features = watch_features(host)

    def pruned(tokens: Tensor, tower: Tower) -> Reduced:
        require_patches(name, tokens, tower)
        seen = features.pop()[:, -tower.patches :]
        norm: Any = tower.module.post_layernorm
        weight, texts = projection.to(tokens.device), question.to(tokens.device)
        embedded = norm(seen).float() @ weight.T
        return cdpruner(tokens, embedded, texts, keep)

    reduce_crops(host, pruned, before_projector=False)


def load_joint_space(path: Path, width: int) -> tuple[Tensor, Tensor]:
    """Read CLIP's visual projection, [g, w], and a question's embeddings, [t, g], in float32.

    The file's tensors are named ...visual_projection.weight and ...text_embeds; w is the tower's `width`.

    Raises:
        InvalidFileError: no such file or tensors, or shapes that do not fit.
    """
    found = read_tensors("cdpruner", path, "visual_projection.weight", "text_embeds")
    projection, question = (tensor.float() for tensor in found)
    if question.ndim == 1:
        question = question.unsqueeze(0)
    if (
        projection.ndim != 2
        or projection.shape[1] != width
        or question.ndim != 2
        or (question.shape[1] != projection.shape[0])
    ):
        raise InvalidFileError(
            f"{path} holds a visual projection {tuple(projection.shape)} and text embeddings "
            f"{tuple(question.shape)}; this tower needs [g, {width}] and [t, g]"
        )
    return projection, question
