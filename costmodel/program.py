"""A model under an execution plan: its blocks lowered to ops once, which then wait for their rows.

What stays fixed for a call (model, precision, plan, attention) is worked out when a `Program` is made.
Its methods then take token counts, numbers or arrays alike, and return a stage's ops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.blocks import Attend, Mask, Plain, Shuffle, Stack
from costmodel.parallel.exchange import Exchange
from costmodel.plans import Setting
from costmodel.windows import cached_tokens, decode_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from costmodel.blocks import Block
    from costmodel.models import ModelConfig
    from costmodel.models.geometry import Pieces, Seen
    from costmodel.plans import Plan, Step
    from costmodel.precision import Precision
    from costmodel.prefix import Prefix
    from costmodel.quantities import Num, OpCost
    from costmodel.schedule import LayerSpan


class _Layers:
    """The layers of a stack, each kind lowered when a span first needs it."""

    def __init__(self, stack: Stack, plan: Plan, setting: Setting) -> None:
        self._stack, self._plan, self._setting = stack, plan, setting
        self._lowered: dict[tuple[int, bool], list[Step]] = {}
        self._in_pieces = [_piece(kind) for kind in stack.kinds]
        self._windows = stack.windows

    def run(
        self,
        first: int,
        layers: int,
        written: Any,
        rows: dict[str, Num],
        times: Num = 1,
        pieces: Mapping[str, Pieces] | None = None,
    ) -> list[OpCost]:
        """Return the ops of consecutive layers.

        Args:
            first: the first of them.
            layers: how many.
            written: whether attention writes its scores out there; an array says it of each scenario.
            rows: of one layer, without `count`.
            times: how often the whole span runs.
            pieces: what attends to itself in layers whose rows have several lengths, by its name.
        """
        if isinstance(written, np.ndarray):
            if np.all(written == written.flat[0]):
                return self.run(first, layers, bool(written.flat[0]), rows, times)
            some = self.run(first, layers, True, rows, times * written)
            return some + self.run(first, layers, False, rows, times * ~written)
        kinds, pattern = self._stack.kinds, self._stack.pattern
        ops: list[OpCost] = []
        for kind in range(len(kinds)):
            count = layers if len(kinds) == 1 else pattern[first : first + layers].count(kind)
            if not count:
                continue
            label = self._stack.labels[kind] if len(kinds) > 1 and self._stack.labels else ""
            steps = self._lowered.get((kind, written))
            if steps is None:
                setting = self._setting._replace(written=written)
                steps = self._lowered[kind, written] = self._plan.lower(kinds[kind], setting)
            rows["count"] = count * times
            window = self._windows[kind]
            if self._in_pieces[kind] and pieces is not None:
                some = self._by_piece(kind, written, rows, pieces[self._in_pieces[kind]])
            elif window and self._setting.phase == "decode":
                some = _either_side(steps, rows, count, times, window)
            else:
                seen = rows
                if window and "held" in rows:
                    # A sliding layer has cut what was cached before the prefill.
                    seen = rows | {"keys": rows["queries"] + cached_tokens(rows["held"], window)}
                some = [step(seen) for step in steps]
            ops += _named(label, some) if label else some
        return ops

    def _by_piece(
        self, kind: int, written: bool, rows: dict[str, Num], pieces: Pieces
    ) -> list[OpCost]:
        """Run a kind's layers, their attention once for the pieces of each length.

        One kernel takes all of them, whatever their lengths; PyTorch loops over them.
        """
        setting = self._setting._replace(written=written)
        loops = self._plan.runs_pytorch
        ops: list[OpCost] = []
        for block in self._stack.kinds[kind]:
            steps = self._plan.lower((block,), setting)
            if not (isinstance(block, Attend) and block.pieces):
                ops += [step(rows) for step in steps]
                continue
            for index, (number, length) in enumerate(pieces):
                each: dict[str, Num] = {"queries": length, "keys": length, "summed": length}
                if loops:
                    each |= {"batch": 1, "count": rows["count"] * number}
                else:
                    each |= {"batch": number, "count": rows["count"] * (number > 0)}
                some = [step(rows | each) for step in steps]
                if index and not loops:  # Ops without a shape are priced kernel by kernel.
                    some = [op if op.shape is None else op._replace(kernels=0) for op in some]
                ops += _named(f"[piece {index}]" if index else "", some)
        return ops


def _piece(kind: Iterable[Block]) -> str:
    """Return the name of what attends to itself in a layer, empty where all has one length."""
    return next((b.pieces for b in kind if isinstance(b, Attend) and b.pieces), "")


#: Behind the names of decode ops whose window is full, where it was not full at the first step.
_FULL = "[full window]"


def _either_side(
    steps: list[Step], rows: dict[str, Num], count: int, times: Num, window: int
) -> list[OpCost]:
    """Run steps of a decode for the tokens before the window is full, and for those after."""
    ops: list[OpCost] = []
    for part, (keys, tokens) in enumerate(decode_parts(rows["keys"], times, window)):
        some = rows | {"keys": keys, "count": count * tokens}
        ops += _named(_FULL if part else "", [step(some) for step in steps])
    return ops


def _named(label: str, ops: list[OpCost]) -> list[OpCost]:
    """Set a label behind the names of ops."""
    return [op.within(label) for op in ops] if label else ops


def _within(ops: list[OpCost], first: int, layers: int, all_layers: int) -> list[OpCost]:
    """Name the layers that ops run in, unless they run in all."""
    if layers == all_layers:
        return ops
    return _named(f"[{first}:{first + layers}]", ops)


class Program:
    """The ops of every stage of a model under a plan.

    Args:
        model: the model.
        precision: the numerics of every module.
        plan: the execution plan.
        attention: `flash`, or `eager` for a kernel that writes its scores out.
        cuts: layers of the language model in front of which a pipeline hands its rows on.
        handed: ranks to which a device of its own sends the visual tokens; 0 where the ranks have them.
    """

    def __init__(
        self,
        model: ModelConfig,
        precision: Precision,
        plan: Plan,
        *,
        attention: str,
        cuts: Iterable[int] = (),
        handed: int = 0,
    ) -> None:
        self._model = model
        self._written = attention == "eager"
        text = model.text
        prefill = Setting(precision, precision.text, "prefill", self._written)
        decode = prefill._replace(phase="decode")
        self._prefill, self._decode = (
            _Layers(text.stack, plan, setting) for setting in (prefill, decode)
        )
        head = (*text.stack.after, text.head, *text.beyond)
        self._embedding = plan.lower((text.embedding, *text.after_embedding), prefill)
        self._before_prefill = plan.lower(text.stack.before, prefill)
        # What depends on a window follows the decode steps on either side of where it is full.
        masks = [b for b in text.stack.before if isinstance(b, Mask) and b.window]
        whole = [block for block in text.stack.before if block not in masks]
        self._before_decode = self._embedding + plan.lower(whole, decode)
        self._sliding_decode = [(mask.window, plan.lower((mask,), decode)) for mask in masks]
        self._after = plan.lower(head, prefill)
        self._cuts = tuple(cuts)
        hand_on = Exchange("stage_send", "send", text.hidden_size, "mlp", 2)
        (self._send,) = plan.lower((hand_on,), prefill)
        if model.vision is None:  # With a vision tower the prompt is embedded on the bridge's side.
            self._before_prefill = self._embedding + self._before_prefill
        if model.vision is not None:
            encoder = Setting(precision, precision.vision, "encoder", self._written)
            stack = model.vision.stack
            self._encoder = _Layers(stack, plan, encoder)
            self._before_encoder = plan.lower(stack.before, encoder)
            self._after_encoder = plan.lower(stack.after, encoder)
        if model.projector is not None:
            projector = Setting(precision, precision.projector, "encoder", self._written)
            merge = Shuffle("merge_tokens", text.hidden_size, "all", module="lm_head")
            blocks = model.projector.blocks
            self._bridge = plan.lower(
                blocks if model.projector.by_plan else (Plain(blocks),), projector
            )
            if handed:
                sent = Exchange(
                    "visual_tokens_send", "send", text.hidden_size * handed, "visual", 2
                )
                self._bridge += plan.lower((sent,), prefill)
            self._merge = plan.lower((merge,), projector)

    def native_vision(self, b: Num, layers: int, seen: Seen) -> list[OpCost]:
        """Return the ops of a vision tower that takes images at their own resolution."""
        vision = self._model.vision
        assert vision is not None  # noqa: S101 - callers checked; narrows the type
        patches = b * seen.patches
        pieces = {
            name: tuple((b * number, length) for number, length in each)
            for name, each in (("images", seen.pieces), ("windows", seen.windows))
        }
        rows: dict[str, Num] = dict.fromkeys(("patch", "token", "entering", "out", "mlp"), patches)
        rows |= {"merged": patches / vision.merge**2, "image": b, "batch": 1, "queries": patches,
                 "keys": patches, "summed": patches, "count": 1}  # fmt: skip
        ops = [step(rows) for step in self._before_encoder]
        ops += self._encoder.run(0, layers, self._written, dict(rows), pieces=pieces)
        return ops + [step(rows) for step in self._after_encoder]

    def vision(
        self, images: Num, spans: tuple[LayerSpan, ...], patches: Num | None = None
    ) -> list[OpCost]:
        """Return the ops of the vision tower over a batch of crops or frames.

        Args:
            images: batch x crops.
            spans: tokens per layer, the class token included; they cover the layers that run.
            patches: of each crop that are embedded; None for all.
        """
        vision = self._model.vision
        assert vision is not None  # noqa: S101 - callers checked; narrows the type
        patches = vision.patches if patches is None else patches
        tokens = patches + vision.tokens - vision.patches
        around: dict[str, Num] = {
            "image": images,
            "patch": images * patches,
            "token": images * tokens,
            "batch": images,
            "queries": 1,
            "keys": tokens,
            "summed": 1,
            "count": 1,
        }
        ops = [step(around) for step in self._before_encoder]
        first = 0
        executed = sum(span.layers for span in spans)
        for span in spans:
            if span.layers == 0:
                continue
            written = self._written or span.query_tokens is not None or span.materialised
            rows = _layer_rows(images, 0, span)
            layer = self._encoder.run(first, span.layers, written, rows)
            ops += _within(layer, first, span.layers, executed)
            first += span.layers
        return ops + [step(around) for step in self._after_encoder]

    def projector(self, b: Num, projected: Num, visual: Num, text: Num) -> list[OpCost]:
        """Return the ops from vision features to the language model's input.

        The bridge, then the text's embedding look-up and the copy that sets the visual tokens among
        it. Without visual tokens the bridge does not run, and there is nothing to merge.

        Args:
            b: batch.
            projected: visual tokens per sample through the bridge.
            visual: visual tokens per sample that reach the language model.
            text: text tokens per sample.
        """
        runs = (projected > 0) * 1
        rows: dict[str, Num] = {
            "projected": b * projected, "text": b * text, "all": b * (visual + text), "visual": b * visual,
            "count": runs,
        }  # fmt: skip
        ops = [step(rows) for step in self._bridge]
        rows["count"] = 1
        ops += [step(rows) for step in self._embedding]
        rows["count"] = runs
        return ops + [step(rows) for step in self._merge]

    def prefill(
        self,
        b: Num,
        text: Num,
        spans: tuple[LayerSpan, ...],
        *,
        all_logits: bool,
        prefix: Prefix | None = None,
    ) -> list[OpCost]:
        """Return the ops of one prefill.

        Args:
            b: batch.
            text: text tokens per sample, seen by every layer.
            spans: visual tokens per layer.
            all_logits: whether logits are computed for every row, not only the last of a sample.
            prefix: what of the prompt is in the cache already; None for nothing.
        """
        s = text + spans[0].tokens
        rows = s if prefix is None else prefix.fresh(spans[0].tokens)
        around: dict[str, Num] = {
            "batch": b, "queries": rows, "keys": s, "text": b * rows, "count": 1,
        }  # fmt: skip
        ops = [step(around) for step in self._before_prefill]
        first = 0
        for span in spans:
            if span.layers == 0:
                continue
            written = self._written or span.materialised
            rows_of = _layer_rows(b, text, span, prefix)
            layer = self._prefill.run(first, span.layers, written, rows_of)
            ops += _within(layer, first, span.layers, self._model.text.num_layers)
            if self._cuts:
                ops += self._sent(first, span.layers, rows_of)
            first += span.layers
        left = _left(spans[-1])
        rows = b * (text + left if prefix is None else prefix.fresh(left))
        around["all"], around["logits"] = rows, rows if all_logits else b
        return ops + [step(around) for step in self._after]

    def decode(self, b: Num, spans: tuple[LayerSpan, ...], before: Num, steps: Num) -> list[OpCost]:
        """Return the ops of `steps` decode steps, each at its mean context.

        FLOPs and bytes are linear in the context, so the mean stands exactly for the sum; where a
        sliding window fills on the way, the steps before and after have a mean each.
        """
        around: dict[str, Num] = {
            "batch": b,
            "queries": 1,
            "keys": before + spans[0].tokens,
            "text": b,
            "all": b,
            "logits": b,
            "count": steps,
        }
        ops = [step(around) for step in self._before_decode]
        for window, masks in self._sliding_decode:
            ops += _either_side(masks, around, 1, steps, window)
        first = 0
        for span in spans:
            if span.layers == 0:
                continue
            rows: dict[str, Num] = {
                "batch": b, "queries": 1, "keys": before + span.tokens, "summed": 1,
                "entering": b, "out": b, "mlp": b, "visual": 0,
            }  # fmt: skip
            layer = self._decode.run(first, span.layers, self._written, rows, steps)
            ops += _within(layer, first, span.layers, self._model.text.num_layers)
            if self._cuts:
                ops += self._sent(first, span.layers, rows, steps)
            first += span.layers
        return ops + [step(around) for step in self._after]

    def _sent(self, first: int, layers: int, rows: dict[str, Num], times: Num = 1) -> list[OpCost]:
        """Return what pipeline stages that begin right behind one of these layers are handed."""
        count = sum(first < cut <= first + layers for cut in self._cuts)
        return [self._send(rows | {"count": count * times})] if count else []


def _left(span: LayerSpan) -> Num:
    """Tokens that leave a layer of a span."""
    if span.mlp_tokens is not None:
        return span.mlp_tokens
    return span.tokens if span.out_tokens is None else span.out_tokens


def _layer_rows(b: Num, text: Any, span: LayerSpan, prefix: Prefix | None = None) -> dict[str, Num]:
    """Rows of a layer whose span counts tokens beside the text."""
    s = text + span.tokens
    if prefix is not None:
        return _fresh_rows(b, s, span, prefix)
    # One array where the rows are the same: what is worked out of it serves every op.
    entering = b * s
    out = entering if span.out_tokens is None else b * (text + span.out_tokens)
    return {
        "batch": b,
        "queries": s,
        "keys": s,
        "summed": s if span.query_tokens is None else text + span.query_tokens,
        "entering": entering,
        "out": out,
        "mlp": out if span.mlp_tokens is None else b * (text + span.mlp_tokens),
        "visual": b * span.tokens,
    }


def _fresh_rows(b: Num, keys: Num, span: LayerSpan, prefix: Prefix) -> dict[str, Num]:
    """Rows of a layer whose cache holds the beginning of its `keys` tokens."""
    queries = prefix.fresh(span.tokens)
    out = queries if span.out_tokens is None else prefix.fresh(span.out_tokens)
    return {
        "batch": b,
        "queries": queries,
        "keys": keys,
        "summed": queries if span.query_tokens is None else prefix.fresh(span.query_tokens),
        "entering": b * queries,
        "out": b * out,
        "mlp": b * (out if span.mlp_tokens is None else prefix.fresh(span.mlp_tokens)),
        "visual": b * prefix.fresh_visual(span.tokens),
        "held": prefix.held(span.tokens),
    }
