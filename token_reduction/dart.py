"""DART: a few pivots, and the tokens that resemble them least.

Source: "Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters More"
(Wen et al., EMNLP 2025) and its program ZichenWen1/DART.
Place: at language-model layer 2, at prefill, from the keys of the layer before and its output. Any
attention kernel serves. Positions stay the original ones.

Complexity, n image tokens, p pivots, d width: n*d for the norms, p*n*d for the similarities and p
dependent selections.

Pivots take turns and each skips what earlier ones chose, so their order matters. The program walks
over a Python set of them: order="set" does the same, at the price of one read-back of the pivots.
order="norm" takes text before image, each by falling norm, and reads nothing back.
The number kept is pivots * ceil(keep / pivots) tokens and the image pivots on top. The paper does not
define the turns.

variant="embedding" is the form of NVIDIA's TensorRT Edge-LLM: input embeddings in place of keys and states,
image pivots within each image's own quota, text pivots shared by all images. An image's pivots choose before
the text's, each list by falling norm, and each takes its part of what is left. A ratio is rounded up in each
image; a count, which the engine does not take, is shared in proportion to the images' tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.dart import (
    COUNT,
    IMAGE_PIVOTS,
    ORDER,
    TEXT_PIVOTS,
)
from costmodel.methods.keep import check_keep, resolve_keep
from hardware_specs.errors import InvalidInputError
from token_reduction.apply.llm_attention import AttentionProbe
from token_reduction.apply.llm_policy import OneCut, by_sequence, images_of, stack_rows
from token_reduction.apply.places import Host, reduce_between_layers
from token_reduction.tokens.checks import misfit, require_finite
from token_reduction.tokens.reduced import Selection
from token_reduction.tokens.selection import (
    check_image_span,
    check_variant,
    complement,
    top_indices,
    unit_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from costmodel.methods import Method
    from token_reduction.apply.anatomy import Parts
    from token_reduction.apply.inside_llm import Prefill
    from token_reduction.apply.llm_tokens import Group


def dart(
    keys: Tensor,
    hidden_states: Tensor,
    keep: float = COUNT,
    *,
    start: int,
    image_tokens: int,
    image_pivots: int = IMAGE_PIVOTS.default,
    text_pivots: int = TEXT_PIVOTS.default,
    order: str = ORDER.default,
) -> Selection:
    """Keep pivots and, for each, the image tokens least similar to it.

    Formula: pivots = image tokens, and tokens after the image, with the largest L1 norm of their
    keys (heads concatenated); each pivot in turn takes the ceil(keep / pivots) image tokens not
    taken yet with the smallest cosine of hidden states.

    Args:
        keys: [h, s, e] (or [1, h, s, e]) of the layer before.
        hidden_states: [s, d] (or [1, s, d]) output of the layer before.
        keep: image tokens chosen by similarity: a count, or a ratio of them rounded to nearest.
        start: sequence position of the first image token.
        image_tokens: number of image tokens.
        image_pivots: pivots among the image tokens, kept as well.
        text_pivots: pivots among the tokens after the image.
        order: "set" (the program's) or "norm".

    Returns:
        Selection with the leading dimension of the input; its scores are the L1 norms.

    Raises:
        InvalidInputError: more than one sequence, an image outside the sequence, too few tokens for
            the pivots or the count, NaN or infinity.

    >>> keys = torch.tensor([[[1.0], [5.0], [2.0], [1.0], [3.0]]])  # text, three image tokens, text
    >>> hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    >>> out = dart(keys, hidden, 1, start=1, image_tokens=3, image_pivots=1, text_pivots=0)
    >>> out.kept_indices.tolist()  # the image pivot 1, and 3, the least like it
    [0, 1, 3, 4]
    """
    check_variant("dart's order", order, ("set", "norm"))
    length = hidden_states.shape[-2]
    lead = hidden_states.shape[:-2]
    if lead.numel() != 1 or keys.ndim != len(lead) + 3 or keys.shape[-2] != length:
        takes = "keys [h, s, e] and hidden states [s, d] of one sequence"
        raise misfit("dart", takes, keys, hidden_states)
    check_image_span(start, image_tokens, length)
    pivots = image_pivots + text_pivots
    after = length - start - image_tokens
    if min(image_pivots, text_pivots) < 0 or pivots < 1 or text_pivots > after:
        raise InvalidInputError(
            f"dart cannot take {image_pivots} image and {text_pivots} text pivots from "
            f"{image_tokens} image tokens and {after} tokens after them"
        )
    each = -(-resolve_keep(keep, image_tokens) // pivots)
    if pivots * each + image_pivots > image_tokens:
        raise InvalidInputError(
            f"dart with keep={keep} keeps {pivots} x {each} tokens and {image_pivots} pivots, more "
            f"than the {image_tokens} image tokens there are"
        )
    with torch.no_grad():
        norms = keys.reshape(keys.shape[-3:]).abs().sum(dim=(0, 2), dtype=keys.dtype)
        hidden = hidden_states.reshape(hidden_states.shape[-2:])
        lengths = hidden.norm(dim=-1, keepdim=True)
        require_finite("dart", keys=norms, hidden_states=lengths)
        unit = unit_rows(hidden, lengths)
        image = slice(start, start + image_tokens)
        own = top_indices(norms[image], image_pivots)
        text = top_indices(norms[image.stop :], text_pivots) + image.stop
        turns = _turns(own + start, text, order)
        kept = _take_turns(unit[turns] @ unit[image].T, own, [each] * pivots)
    dropped = complement(kept, image_tokens) + start
    return Selection(
        kept_indices=complement(dropped, length).expand(*lead, -1),
        image_indices=kept.expand(*lead, -1),
        scores=norms[image].expand(*lead, -1),
    )


def dart_of_embeddings(
    embeddings: Tensor,
    keep: float = COUNT,
    *,
    spans: Sequence[tuple[int, int]],
    image_pivots: int = IMAGE_PIVOTS.default,
    text_pivots: int = TEXT_PIVOTS.default,
) -> Selection:
    """Keep, of every image in a prompt, its pivots and the tokens least similar to a pivot.

    Formula: pivots of an image = its tokens with the largest L1 norm, then the same of all text; its quota
    q = ceil(keep n) holds its own pivots. Pivots take turns: with p turns left and r tokens still missing,
    one takes the ceil(r / p) tokens with the smallest cosine that are not taken.

    Args:
        embeddings: [s, d] what the first layer sees of one sequence.
        keep: image tokens that stay: a ratio of each image rounded up, or a count of all of them.
        spans: first token and number of tokens of every image, ascending.
        image_pivots: pivots in each image, kept as well.
        text_pivots: pivots among the tokens of no image.

    Returns:
        Selection; image_indices count through the tokens of all images, scores are L1 norms.

    Raises:
        InvalidInputError: an image outside the sequence, too few text tokens for the pivots, no pivot,
            a keep out of range, NaN or infinity.

    >>> x = torch.tensor([[9.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # text, three image tokens
    >>> out = dart_of_embeddings(x, 2, spans=[(1, 3)], image_pivots=1, text_pivots=0)
    >>> out.kept_indices.tolist()  # the text, the image pivot 1, and 3, the least like it
    [0, 1, 3]
    """
    if embeddings.ndim != 2:
        raise misfit("dart", "the embeddings [s, d] of one sequence", embeddings)
    length = len(embeddings)
    for start, count in spans:
        check_image_span(start, count, length)
    device, sizes = embeddings.device, [count for _, count in spans]
    if min(image_pivots, text_pivots) < 0 or image_pivots + text_pivots < 1 or (
        text_pivots > length - sum(sizes)
    ):  # fmt: skip
        raise InvalidInputError(
            f"dart cannot take {image_pivots} image and {text_pivots} text pivots from {sum(sizes)} "
            f"image tokens and {length - sum(sizes)} others"
        )
    with torch.no_grad():
        norms = embeddings.abs().sum(dim=-1)
        lengths = embeddings.norm(dim=-1, keepdim=True)
        require_finite("dart", embeddings=lengths)
        unit = unit_rows(embeddings, lengths)
        places = torch.cat([torch.arange(start, start + count) for start, count in spans])
        outside = complement(places, length).to(device, non_blocking=True)
        places = places.to(device, non_blocking=True)
        text = outside[top_indices(norms[outside], text_pivots)]
        kept, before = [], 0
        shares = quotas(keep, sizes)
        for (start, count), share in zip(spans, shares, strict=True):
            image = slice(start, start + count)
            own = top_indices(norms[image], min(image_pivots, share))
            turns = torch.cat((own + start, text))
            counts = split_evenly(share - len(own), len(turns))
            found = _take_turns(unit[turns] @ unit[image].T, own, counts)
            kept.append(found + before)
            before += count
        images = torch.cat(kept)
        whole = torch.cat((outside, places[images])).sort().values
    return Selection(kept_indices=whole, image_indices=images, scores=norms[places])


def quotas(keep: float, sizes: Sequence[int]) -> list[int]:
    """Tokens that each image keeps: a ratio of its own rounded up, or its part of a count.

    >>> quotas(0.5, [3, 4]), quotas(5, [3, 3, 6])  # 1.25, 1.25, 2.5: the rest to the largest remainder
    ([2, 2], [1, 1, 3])
    """
    keep = check_keep(keep)
    if isinstance(keep, float):
        return [resolve_keep(keep, size, rounding="up") for size in sizes]
    total = sum(sizes)
    count = resolve_keep(keep, total)
    shares = [count * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(count * sizes[i] % total))
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    return shares


def split_evenly(count: int, parts: int) -> list[int]:
    """Cut a count into parts that differ by one at most, larger ones first.

    >>> split_evenly(10, 4)
    [3, 3, 2, 2]
    """
    return [count // parts + (part < count % parts) for part in range(parts)]


def _turns(image: Tensor, text: Tensor, order: str) -> Tensor:
    """Sequence positions of the pivots, in the order they choose."""
    if order == "norm":
        return torch.cat((text, image))
    # Iterating over a set of small ints follows their hashes, the same on every CPython.
    pivots = list({*torch.cat((image, text)).tolist()})
    return torch.tensor(pivots).to(image.device, non_blocking=True)


def _take_turns(similarity: Tensor, own: Tensor, counts: Sequence[int]) -> Tensor:
    """Image tokens kept, ascending, from similarities [pivots, n] and what each pivot takes."""
    taken = torch.zeros_like(similarity[0]).scatter(0, own, float("inf"))
    chosen = [own]
    for row, count in zip(similarity, counts, strict=True):
        picks = (row + taken).topk(count, largest=False).indices
        taken = taken.scatter(0, picks, float("inf"))
        chosen.append(picks)
    return torch.cat(chosen).sort().values


def plug(host: Host) -> None:
    """Cut at one layer of the language model: by the keys of the layer before it, or by embeddings."""
    embedding = host.method.variant == "embedding"
    reduce_between_layers(host, EmbeddingPivots if embedding else Pivots)


class EmbeddingPivots(OneCut):
    """DART on what the first layer sees: every image keeps its share."""

    by_piece = True

    def __init__(self, method: Method, parts: Parts) -> None:
        super().__init__(method, parts, 0)

    def pick(self, group: Group, layer: int, now: Prefill, hidden: Tensor) -> Tensor:  # noqa: ARG002
        """Let the pivots take turns in every image of each sequence."""
        return stack_rows(self.method.name, [self._pivoted(row, now, hidden) for row in group.rows])

    def _pivoted(self, row: int, now: Prefill, hidden: Tensor) -> Tensor:
        method = self.method
        states, spans = images_of(now, row, hidden)
        return dart_of_embeddings(
            states,
            method.settled_keep,
            spans=spans,
            image_pivots=IMAGE_PIVOTS.of(method),
            text_pivots=TEXT_PIVOTS.of(method),
        ).image_indices


class Pivots(OneCut):
    """DART: a few pivots, and the visual tokens that resemble them least.

    Raises:
        InvalidInputError: a layer the model does not have, or layer 0, before which no key is.
    """

    def __init__(self, method: Method, parts: Parts) -> None:
        super().__init__(method, parts)
        if self.layer < 1:
            raise InvalidInputError(
                f"{method.name} looks at the keys of the layer before; give a layer of at least 1"
            )
        self._norm: Any = parts.language.norm
        self._probe = AttentionProbe(parts, self.layer - 1)
        self.probes = (self._probe,)

    def begin(self, now: Prefill) -> None:
        """Only keys are read; the last rows are the fewest queries to hold."""
        super().begin(now)
        self._probe.wanted = now.last_places

    def choose(self, layer: int, now: Prefill, hidden: Tensor) -> list[Tensor]:  # noqa: ARG002
        """Take turns in each sequence; the program compares states behind the model's last norm."""
        keys, states = self._probe.keys(), self._norm(hidden)
        self._probe.forget()
        method = self.method

        def pivoted(row: int, span: slice, start: int, count: int) -> Selection:
            return dart(
                keys[row, :, span],
                states[row, span],
                method.settled_keep,
                start=start,
                image_tokens=count,
                image_pivots=IMAGE_PIVOTS.of(method),
                text_pivots=TEXT_PIVOTS.of(method),
                order=ORDER.of(method),
            )

        return by_sequence(now, method.name, pivoted)
