"""The model of one rank: its blocks cut as tensor parallelism cuts them, its layers as pipelines do.

Products that widen a row (q, k, v; gate and up) lose columns, those that close a branch (o, down) lose rows
and are followed by an all-reduce of the branch (Shoeybi et al. 2019, Megatron-LM). Query heads are divided;
where there are fewer KV heads than ranks, each is held by several. Embedding and head are divided by
vocabulary: an all-reduce follows the one, an all-gather of the logits the other. Norms, routers and
bridge are held whole by every rank, and computed there; so is the vision tower unless its layers are to be
divided. Experts are divided within, each rank holding a slice of all of them, with one all-reduce of
their sum.

Where norms are divided by sequence (Korthikanti et al. 2022, arXiv 2205.05198), every rank keeps the stream
of its share of the rows alone, norms and adds included: a reduce-scatter takes the place of the all-reduce
behind a branch, and an all-gather of the normed rows comes in front of the next one and of the head.

Everything else (parameters, FLOPs, bytes, memory) follows from the blocks, as for a whole model.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from costmodel.blocks import Activate, Attend, Combine, Embed, Norm, Project, Residual, Rotate
from costmodel.parallel.exchange import Exchange
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.blocks import Block
    from costmodel.models import ModelConfig, TextConfig, VisionConfig
    from costmodel.parallel.degrees import Parallel


def rank_model(
    model: ModelConfig, tp: int, *, tower: bool = False, by_sequence: bool = False
) -> ModelConfig:
    """Return what one rank of a tensor-parallel group computes; the first one, where parts differ.

    Args:
        model: the whole.
        tp: ranks.
        tower: whether the vision tower's layers are divided too.
        by_sequence: whether the norms of the language model's layers are.

    Raises:
        InvalidInputError: heads or widths that so many ranks cannot share.

    >>> from costmodel import load_model
    >>> text = rank_model(load_model("llama-2-7b"), 2).text
    >>> text.layer_parameters  # (4 x 4096^2 + 3 x 4096 x 11008) / 2 + 2 x 4096
    101195776
    """
    if tp == 1:
        return model
    text = model.text
    rows = -(-text.vocab_size // tp)
    d = text.hidden_size
    kinds = tuple(_layer(kind, tp, text) for kind in text.stack.kinds)
    stack = replace(text.stack, kinds=kinds)
    gather = Exchange("logits_all_gather", "all_gather", text.vocab_size, "logits", tp)
    sum_up = Exchange("embedding_all_reduce", "all_reduce", d, text.embedding.rows, tp)
    if by_sequence:
        gathered = Exchange("final_all_gather", "all_gather", d, "all", tp)
        stack = replace(
            stack,
            kinds=tuple(_by_sequence(kind, tp) for kind in kinds),
            after=(*_by_sequence(text.stack.after, tp), gathered),
        )
        if model.vision is None:  # Visual tokens are set among the whole text.
            sum_up = _scattered(sum_up)
    share = replace(
        text,
        num_heads=_part(text.num_heads, tp, "attention heads", text),
        num_kv_heads=_kv_heads(text.num_kv_heads, tp, text),
        intermediate_size=text.intermediate_size // tp,
        stack=stack,
        embedding=replace(text.embedding, table=rows),
        after_embedding=(sum_up,),
        head=replace(text.head, parts=tuple((name, rows) for name, _ in text.head.parts)),
        beyond=(gather, *text.beyond),
    )
    if model.vision is None or not tower:
        return replace(model, text=share)
    vision = model.vision
    _part(vision.num_heads, tp, "heads of the vision tower", vision)
    kinds = tuple(_layer(kind, tp, vision) for kind in vision.stack.kinds)
    return replace(
        model, text=share, vision=replace(vision, stack=replace(vision.stack, kinds=kinds))
    )


def _kv_of(owner: TextConfig | VisionConfig) -> int:
    """KV heads of a language model; a tower has as many as heads."""
    return getattr(owner, "num_kv_heads", owner.num_heads)


def _part(whole: int, tp: int, what: str, owner: TextConfig | VisionConfig) -> int:
    if whole % tp:
        raise InvalidInputError(
            f"tp={tp} does not divide the {whole} {what} of this {owner.family} model; take a divisor"
        )
    return whole // tp


def _kv_heads(heads: int, tp: int, owner: TextConfig | VisionConfig) -> int:
    """KV heads of a rank: a share of them, or one that others hold as well."""
    if tp > heads and tp % heads == 0:
        return 1
    return _part(heads, tp, "KV heads", owner)


def _layer(blocks: Sequence[Block], tp: int, owner: TextConfig | VisionConfig) -> tuple[Block, ...]:
    """Return a rank's blocks of a layer, with the all-reduces behind its branches."""
    found: list[Block] = []
    cut, summed = False, None
    for place, block in enumerate(blocks):
        match block:
            case Project() if cut:
                width = _part(block.width, tp, f"inputs of {block.name}", owner)
                found.append(replace(block, width=width))
                summed = Exchange(
                    f"{block.name}_all_reduce", "all_reduce", block.outputs, block.rows, tp
                )
                cut = False
                if not block.experts:
                    found.append(summed)
            case Project() if (attend := _feeds(blocks[place + 1 :])) is not None:
                found.append(replace(block, parts=_columns(block, attend, tp, owner)))
                cut = True
            case Attend() | Rotate():
                h = _part(block.heads, tp, "attention heads", owner)
                found.append(replace(block, heads=h, kv_heads=_kv_heads(block.kv_heads, tp, owner)))
            case Norm() if cut and block.per_row == owner.num_heads:
                found.append(
                    replace(block, per_row=_part(block.per_row, tp, "attention heads", owner))
                )
            case Norm() if cut and block.per_row == _kv_of(owner):
                found.append(replace(block, per_row=_kv_heads(block.per_row, tp, owner)))
            case Activate() if cut:
                found.append(replace(block, width=_part(block.width, tp, "MLP features", owner)))
            case Combine() if summed is not None:
                found += [block, summed]
            case _:
                found.append(block)
    return tuple(found)


def _by_sequence(blocks: Sequence[Block], tp: int) -> tuple[Block, ...]:
    """Return a rank's blocks with the stream between the branches divided by rows."""
    found: list[Block] = []
    divided = True
    for block in blocks:
        match block:
            case Norm() | Residual() if divided:
                found.append(replace(block, rows=f"{block.rows}/{tp}"))
            case Exchange():
                found.append(_scattered(block))
                divided = True
            case Project() if divided:
                name = f"{block.name}_all_gather"
                found += [Exchange(name, "all_gather", block.width, block.rows, tp), block]
                divided = False
            case _:
                found.append(block)
    return tuple(found)


def _scattered(block: Exchange) -> Exchange:
    """Return an all-reduce of which every rank keeps its share of the rows."""
    name = block.name.replace("all_reduce", "reduce_scatter")
    return replace(block, name=name, kind="reduce_scatter")


def _feeds(blocks: Sequence[Block]) -> Attend | Activate | None:
    """Return the attention or activation that reads a product, None where another product does."""
    for block in blocks:
        if isinstance(block, (Attend, Activate)):
            return block
        if isinstance(block, Project):
            return None
    return None


def _columns(
    block: Project, reader: Attend | Activate, tp: int, owner: TextConfig | VisionConfig
) -> tuple[tuple[str, int], ...]:
    """Return name and width of a rank's part of each product that widens a row."""
    if isinstance(reader, Activate):
        return tuple((name, _part(n, tp, f"features of {name}", owner)) for name, n in block.parts)
    h, k, e = reader.heads, reader.kv_heads, reader.head_dim
    mine = {heads: share * e for heads, share in _heads(h, k, tp, owner).items()}
    for name, n in block.parts:
        if n % e or n // e not in mine:
            raise InvalidInputError(
                f"{name} of {n} features is no product of heads, and cannot be cut"
            )
    return tuple((name, mine[n // e]) for name, n in block.parts)


def _heads(h: int, k: int, tp: int, owner: TextConfig | VisionConfig) -> dict[int, int]:
    """Return a rank's heads of a product with all query heads, all KV heads, or both kinds in one."""
    queries, keys = _part(h, tp, "attention heads", owner), _kv_heads(k, tp, owner)
    return {k: keys, h: queries, h + 2 * k: queries + 2 * keys}


def tower_alone(model: ModelConfig) -> ModelConfig:
    """Return what a device holds that runs the vision tower and the bridge for others.

    >>> from costmodel import load_model
    >>> model = load_model("llava-1.5-7b")
    >>> tower_alone(model).parameters + without_tower(model).parameters == model.parameters
    True
    """
    text = model.text
    stack = replace(text.stack, pattern=(), after=())
    none = replace(
        text, num_layers=0, stack=stack, embedding=Embed("", 0, 0, text.embedding.rows),
        head=replace(text.head, parts=(), shared=False), vocab_size=0, intermediate_size=0,
    )  # fmt: skip
    return replace(model, text=none)


def without_tower(model: ModelConfig) -> ModelConfig:
    """Return what the ranks hold where another device runs the vision tower and the bridge."""
    return replace(model, vision=None, projector=None, extra_parameters=0)


def stages_of(parallel: Parallel, model: ModelConfig) -> list[tuple[int, int]]:
    """Return first and last layer (exclusive) of every pipeline stage; the first ones are the longer.

    Raises:
        InvalidInputError: more stages than layers.

    >>> from costmodel import load_model
    >>> from costmodel.parallel import Parallel
    >>> stages_of(Parallel(pp=3), load_model("llama-2-7b"))
    [(0, 11), (11, 22), (22, 32)]
    """
    layers, pp = model.text.num_layers, parallel.pp
    if pp > layers:
        raise InvalidInputError(
            f"pp={pp} is more stages than the {layers} layers of {model.name}; take fewer"
        )
    each, more = divmod(layers, pp)
    ends = [stage * each + min(stage, more) for stage in range(pp + 1)]
    return list(pairwise(ends))


def pipeline_stage(model: ModelConfig, first: int, last: int) -> ModelConfig:
    """Return the layers of one pipeline stage, with what stands before the first or behind the last one.

    >>> from costmodel import load_model
    >>> model = load_model("llama-2-7b")
    >>> sum(pipeline_stage(model, a, b).parameters for a, b in ((0, 16), (16, 32))) == model.parameters
    True
    """
    text = model.text
    begins, ends = first == 0, last == text.num_layers
    head = replace(text.head, parts=() if not ends else text.head.parts)
    embedding = text.embedding if begins else Embed("", 0, 0, text.embedding.rows)
    if ends and not begins:
        # A table that both share is held at either end.
        head = replace(head, shared=False)
    stack = replace(
        text.stack,
        pattern=text.stack.pattern[first:last],
        after=text.stack.after if ends else (),
    )
    text = replace(
        text, num_layers=last - first, stack=stack, embedding=embedding, head=head,
        vocab_size=text.vocab_size if ends else 0,
    )  # fmt: skip
    if begins:
        return replace(model, text=text)
    return replace(model, text=text, vision=None, projector=None, extra_parameters=0)
