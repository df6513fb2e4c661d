"""What decoders with experts share: how many there are, and which layers have them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmodel.models.decoders import Decoder
from costmodel.models.decoders.gated import DEFAULTS, kinds_of, read_gated, with_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.models.reading import Section
    from costmodel.models.text import TextConfig


def gated_experts(
    family: str, label: str, size: str, defaults: Mapping[str, Any], **facts: Any
) -> Decoder:
    """Return a decoder with experts, whose config calls their width `size`; the rest is as for `gated`."""
    known = {**DEFAULTS, **defaults}

    def read(section: Section, tied: bool | None) -> TextConfig:
        return with_experts(section, read_gated(section, family, known, tied, **facts), size)

    return Decoder(label, known, read)


def with_experts(section: Section, dense: TextConfig, size: str) -> TextConfig:
    """Return a language model with a router and experts in place of its MLPs.

    Raises:
        InvalidFileError: more experts for a token than there are, or layers that are none.
    """
    # What checkpoints call num_experts, transformers writes under another name.
    names = ("num_local_experts", "num_experts")
    name = next(name for name in names if name in section or name in section.defaults)
    n, k = section.whole(name), section.whole("num_experts_per_tok")
    if k > n:
        raise section.fail("num_experts_per_tok", f"({k}) is more than {name} ({n})")
    text = replace(dense, experts=n, chosen_experts=k, expert_size=section.whole(size))
    step, plain = 1, list[int]()
    if "decoder_sparse_step" in section.defaults:
        step = section.whole("decoder_sparse_step")
        plain = section.raw("mlp_only_layers") or []
        if not isinstance(plain, list):
            raise section.fail("mlp_only_layers", f"must be a list of layers, not {plain!r}")
    layers = enumerate(kinds_of(text))
    return with_blocks(
        text, [kind._replace(sparse=i not in plain and (i + 1) % step == 0) for i, kind in layers]
    )
