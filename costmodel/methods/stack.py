"""Two methods in one request: one before the language model, and one inside it that takes what is left.

Written `divprune(keep=144)/fastv(keep=0.5)`: first the one that comes first. The second's schedule and
price are those of a prompt with the first one's tokens.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from costmodel.methods.info import MethodInfo
from costmodel.methods.method import Method, ask
from costmodel.methods.spelling import QUOTED
from hardware_specs.errors import InvalidInputError

if TYPE_CHECKING:
    from costmodel.methods.plan import MethodInput, MethodPlan
    from costmodel.models.geometry import Part, Seen
    from costmodel.quantities import Num


#: Text in quotes, or one letter.
_PIECE = re.compile(rf"{QUOTED}|.", re.DOTALL)


def split_stack(text: str) -> list[str]:
    """Return the methods of a line, which `/` stands between; a slash in brackets is a setting's own.

    >>> split_stack("divprune(keep=144) / fastv"), split_stack('cdpruner(embeddings="a)/b")')
    (['divprune(keep=144)', 'fastv'], ['cdpruner(embeddings="a)/b")'])
    """
    depth, parts = 0, [""]
    for piece in _PIECE.findall(text):
        depth += (piece == "(") - (piece == ")")
        if piece == "/" and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def stack(methods: list[Method]) -> Method:
    """Return two methods as one request.

    Raises:
        InvalidInputError: not one before the language model and then one inside it.

    >>> from costmodel.methods import get_method
    >>> get_method("divprune(keep=144)/fastv(keep=0.5)").name
    'divprune(keep=144)/fastv(keep=0.5)'
    """
    places = [method.place for method in methods]
    if (
        len(methods) != 2
        or places[0] == "llm-layer"
        or places[1] != "llm-layer"
        or (methods[0].info.second_place is not None)
    ):
        said = ", ".join(f"{method.name} {method.info.where}" for method in methods)
        raise InvalidInputError(
            f"{said}: two methods stack where the first acts before the language model and the second "
            "between its layers; write divprune(keep=144)/fastv"
        )
    first, second = methods
    infos = first.info, second.info

    def both(given: MethodInput) -> MethodPlan:
        return _plan(first, second, given)

    needs_text = "; ".join(dict.fromkeys(info.needs_text for info in infos))
    again = [info.recomputes for info in infos if info.recomputes != "nothing"]
    info = MethodInfo(
        name=f"{first}/{second}",
        place=first.place,
        source="; ".join(info.source for info in infos),
        summary="; then ".join(info.summary for info in infos),
        formula="; then ".join(info.formula for info in infos),
        complexity="; then ".join(info.complexity for info in infos),
        schedule=both,
        needs=infos[0].needs | infos[1].needs,
        needs_text=needs_text,
        keep_meaning="each of the two has its own, in brackets",
        default_text="; then ".join(info.default_text for info in infos),
        rounding=None,
        keep_kind="none",
        trained=any(info.trained for info in infos),
        by_crop=infos[0].by_crop,
        on_merged=infos[0].on_merged,
        needs_class_token=infos[0].needs_class_token,
        samples=any(info.samples for info in infos),
        asks_question=any(info.asks_question for info in infos),
        count_known=all(info.count_known for info in infos),
        fused_attention=all(info.fused_attention for info in infos),
        recomputes="; ".join(again) or "nothing",
        together=infos[1].together,
        clips=infos[0].clips,
        stages=(first, second),
    )
    return ask(info, keep=None, layer=None, variant="program", options={})


def _plan(first: Method, second: Method, given: MethodInput) -> MethodPlan:
    def plan_of(
        method: Method, tokens: Num, unit: Num, parts: tuple[Part, ...], seen: Seen | None = None
    ) -> MethodPlan:
        return method.plan(
            given.model, given.precision, tokens, given.projected_tokens, given.crops,
            given.text_tokens, given.batch_size, given.vision_layers, images=given.images,
            unit_tokens=unit, framed=given.framed, seen=seen, parts=parts,
        )  # fmt: skip

    before = plan_of(first, given.visual_tokens, given.unit_tokens, given.parts, given.seen)
    # Before the language model every layer sees as many.
    unit = given.unit_tokens if first.keeps_everything else 0
    after = plan_of(second, before.llm_spans[0].tokens, unit, before.parts)
    return after._replace(
        projected_tokens=before.projected_tokens,
        vision_spans=before.vision_spans,
        patches=before.patches,
        seen=before.seen,
        ops=(*before.ops, *after.ops),
        notes={**before.notes, **after.notes},
        warnings=(*before.warnings, *after.warnings),
    )
