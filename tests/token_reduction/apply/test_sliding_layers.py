"""Methods between layers that slide, against the whole model with the dropped tokens hidden from sight.

Windows go by the places that tokens have in the whole prompt: what is left sees what it saw before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from merging_families import tiny_inputs, tiny_model
from tiny_families import CLIP, TEXT

from token_reduction import get_method, reduce_tokens
from token_reduction.caches import cache_keyword, cache_of

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOW = 12
#: What is in LLaVA -> what its config says beside the shared numbers.
DECODERS: dict[str, dict[str, Any]] = {
    "mistral": {"head_dim": 16},
    "phi3": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "gemma3_text": {
        "head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"] * 2,
    },
}
KINDS = (*DECODERS, "gemma3")


def _built(kind: str, attention: str) -> tuple[Any, dict[str, Any]]:
    """A model whose window is shorter than its prompt of 25 or 45 tokens."""
    if kind == "gemma3":
        model, given = tiny_model(kind), tiny_inputs(kind)
        for layer in model.model.language_model.layers:
            layer.self_attn.sliding_window = WINDOW if layer.self_attn.is_sliding else None
        model.config.text_config.sliding_window = WINDOW
        model.set_attn_implementation(attention)
        return model, given
    text = {**TEXT, "num_hidden_layers": 6, "sliding_window": WINDOW, "model_type": kind}
    config = transformers.AutoConfig.for_model(
        "llava", text_config=text | DECODERS[kind], vision_config=CLIP, image_token_index=120,
        image_seq_length=36,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(
        config, attn_implementation=attention
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.1)
    ids = torch.tensor([[1, 2, 3, *[120] * 36, 5, 6, 7, 8, 9, 10]])
    return model.eval(), {"input_ids": ids, "pixel_values": torch.randn(1, 3, 84, 84)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["sdpa", "eager"])
def attention(request: pytest.FixtureRequest) -> str:
    return request.param


def _steps(model: Any, given: dict[str, Any], answer: list[int]) -> Iterator[torch.Tensor]:
    """Logits of the prompt and behind each token of an answer, one by one."""
    out = model(**given, use_cache=True, logits_to_keep=1)
    yield out.logits[0, -1]
    for token in answer:
        cache = {cache_keyword(): cache_of(out)}
        out = model(input_ids=torch.tensor([[token]]), **cache, use_cache=True, logits_to_keep=1)
        yield out.logits[0, -1]


def _hidden(
    model: Any, given: dict[str, Any], answer: list[int], layer: int, dropped: torch.Tensor
) -> Iterator[torch.Tensor]:
    """The same without a cache, every time from the start: from a layer on, nobody sees some places."""

    def hide(_module: Any, args: Any, kwargs: Any) -> Any:
        mask = kwargs.get("attention_mask")
        size = (args[0] if args else kwargs["hidden_states"]).shape[1]
        if mask is None:
            mask = torch.ones(1, 1, size, size, dtype=torch.bool).tril()
        if mask.dtype != torch.bool:
            mask = mask == 0
        seen = mask.clone()
        seen[..., dropped] = False
        # A row must see something; what is dropped sees itself, and nobody sees it.
        seen |= torch.eye(size, dtype=torch.bool)
        return args, {**kwargs, "attention_mask": seen}

    hooks = [
        each.register_forward_pre_hook(hide, with_kwargs=True)
        for each in model.model.language_model.layers[layer:]
    ]
    try:
        for count in range(len(answer) + 1):
            more = torch.tensor([answer[:count]], dtype=torch.long)
            longer = {**given, "input_ids": torch.cat((given["input_ids"], more), dim=1)}
            for name in ("token_type_ids", "attention_mask"):
                if name in given:
                    fill = torch.full_like(more, name == "attention_mask")
                    longer[name] = torch.cat((given[name], fill), dim=1)
            yield model(**longer, use_cache=False, logits_to_keep=1).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def test_what_is_dropped_is_out_of_sight_and_nothing_else(kind: str, attention: str) -> None:
    model, given = _built(kind, attention)
    answer = list(range(11, 11 + WINDOW + 3))
    marks = torch.where(given["input_ids"][0] == 120)[0]
    with reduce_tokens(model, get_method("fastv", keep=5, layer=2)) as record:
        reduced = list(_steps(model, given, answer))
    (kept,) = record.kept_indices
    gone = torch.ones(len(marks), dtype=torch.bool)
    gone[kept] = False
    model.set_attn_implementation("sdpa")  # which takes boolean masks
    expected = list(_hidden(model, given, answer, 2, marks[gone]))
    for ours, theirs in zip(reduced, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_nothing_dropped_changes_nothing(kind: str, attention: str) -> None:
    model, given = _built(kind, attention)
    answer = list(range(11, 11 + WINDOW + 3))
    expected = list(_steps(model, given, answer))
    n = int((given["input_ids"] == 120).sum())
    for name in (f"fastv(keep={n}, layer=1)", f"divprune(keep={n}, layer=3)"):
        with reduce_tokens(model, get_method(name)):
            ours = list(_steps(model, given, answer))
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_deleting_in_the_last_layer_changes_no_logits(kind: str) -> None:
    """FitPrune computes the layer itself: norms of heads, norms behind, products in one, masks."""
    model, given = _built(kind, "sdpa")
    layers = len(model.model.language_model.layers)
    expected = model(**given, logits_to_keep=1).logits
    with reduce_tokens(model, get_method("fitprune", scheme=(0,) * (layers - 1) + (7,))) as record:
        ours = model(**given, logits_to_keep=1).logits
    assert record.visual_tokens[0] - record.visual_tokens[1] == 7
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    "method", ["pyramiddrop(keep=0.5)", "sparsevlm(layers=[2,4], counts=[8,4])", "vtw(layer=3)"]
)
def test_renumbered_and_merged_tokens_decode(kind: str, attention: str, method: str) -> None:
    model, given = _built(kind, attention)
    with reduce_tokens(model, get_method(method)) as record:
        found = list(_steps(model, given, list(range(11, 11 + WINDOW + 3))))
    before, after = record.visual_tokens
    assert after < before
    assert all(bool(each.isfinite().all()) for each in found)


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_padded_row_is_what_it_is_alone(decoder: str, attention: str) -> None:
    model, given = _built(decoder, attention)
    answer = list(range(11, 11 + WINDOW + 3))
    method = get_method("fastv", keep=5, layer=2)
    ids, pixels = given["input_ids"], given["pixel_values"]
    with reduce_tokens(model, method):
        alone = list(_steps(model, given, answer))
    pad = torch.zeros(1, 4, dtype=torch.long)
    longer = torch.cat((ids[:, :3], pad + 14, ids[:, 3:]), dim=1)
    both = {
        "input_ids": torch.cat((torch.cat((pad, ids), dim=1), longer)),
        "pixel_values": torch.cat((pixels, -pixels)),
        "attention_mask": torch.ones(2, ids.shape[1] + 4, dtype=torch.long),
    }
    both["attention_mask"][0, :4] = 0
    both["position_ids"] = (both["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with reduce_tokens(model, method):
        out = model(**both, use_cache=True, logits_to_keep=1)
        found = [out.logits[0, -1]]
        mask = both["attention_mask"]
        for token in answer:
            mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
            out = model(
                input_ids=torch.tensor([[token]] * 2), attention_mask=mask, use_cache=True,
                position_ids=mask.sum(1, keepdim=True) - 1, logits_to_keep=1,
                **{cache_keyword(): cache_of(out)},
            )  # fmt: skip
            found.append(out.logits[0, -1])
    torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-3)
