"""Attention received in a tower of native resolution, against whole maps in float64, and who ranks by it."""

from __future__ import annotations

import pytest
import torch
import transformers

from token_reduction import get_method, reduce_tokens
from token_reduction.hiprune import hiprune
from token_reduction.holov import holov

IMAGE = 120
#: Rows and columns of patches of two images; the windows of 4 x 4 patches are cut at both edges.
GRIDS = ((1, 10, 14), (1, 6, 8))


@pytest.fixture(scope="module")
def qwen():
    config = transformers.AutoConfig.for_model(
        "qwen2_5_vl", image_token_id=IMAGE, video_token_id=121, vision_start_token_id=122,
        text_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1, 3],
        },
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.AutoModelForImageTextToText.from_config(config).eval()


@pytest.fixture(scope="module")
def given():
    parts = []
    for number, (_, rows, columns) in enumerate(GRIDS):
        parts += [5 + number, 122, *[IMAGE] * (rows * columns // 4)]
    ids = torch.tensor([[*parts, 7, 8]])
    made = torch.Generator().manual_seed(1)
    pixels = torch.randn(sum(rows * columns for _, rows, columns in GRIDS), 1176, generator=made)
    return {
        "input_ids": ids, "pixel_values": pixels, "image_grid_thw": torch.tensor(GRIDS),
        "mm_token_type_ids": (ids == IMAGE).long(),
    }  # fmt: skip


def received(model, given, depth: int) -> list[torch.Tensor]:
    """Of each image, the mean over heads and queries of a layer's whole map, merged, in raster order."""
    tower, seen = model.model.visual, {}
    attention = tower.blocks[depth].attn
    hooks = [
        attention.qkv.register_forward_hook(lambda _m, _a, output: seen.update(qkv=output)),
        attention.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.update(kwargs), with_kwargs=True
        ),
    ]
    with torch.no_grad():
        model(**given)
    for hook in hooks:
        hook.remove()
    size = len(seen["qkv"])
    q, k, _ = seen["qkv"].double().view(size, 3, 2, -1).permute(1, 2, 0, 3)
    cos, sin = (part.double() for part in seen["position_embeddings"])
    half = q.shape[-1] // 2
    q, k = (x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin for x in (q, k))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    piece = torch.bucketize(torch.arange(size), seen["cu_seqlens"].long(), right=True)
    apart = piece[:, None] != piece[None, :]
    looked = scores.masked_fill(apart, -torch.inf).softmax(-1).mean(0).sum(0).view(-1, 4).mean(-1)
    laid, start, found = [], 0, []
    for _, rows, columns in GRIDS:
        # Where each merged token of the image lies: window by window, rows and columns of 2 tokens.
        high, wide = rows // 2, columns // 2
        order = [
            (r, c)
            for top in range(0, high, 2) for left in range(0, wide, 2)
            for r in range(top, min(top + 2, high)) for c in range(left, min(left + 2, wide))
        ]  # fmt: skip
        laid = torch.zeros(high * wide, dtype=torch.double)
        for place, (r, c) in enumerate(order):
            laid[r * wide + c] = looked[start + place]
        found.append(laid / (rows * columns))
        start += high * wide
    return found


def run(model, given, method):
    with torch.no_grad(), reduce_tokens(model, get_method(method)) as record:
        model(**given)
    return [kept.tolist() for kept in record.kept_indices]


@pytest.mark.parametrize(
    ("line", "shallow"), [("hiprune", 1), ("hiprune(shallow=1, alpha=0.8)", 0)]
)
def test_hiprune_ranks_by_two_layers(qwen, given, line, shallow) -> None:
    """The middle layer sees whole images, layer -2 windows."""
    alpha = 0.8 if "alpha" in line else 0.1
    early, late = (received(qwen, given, depth) for depth in (shallow, 2))
    kept = run(qwen, given, f"{line.rstrip(')')}{', ' if '(' in line else '('}keep=9)")
    for number, (_, rows, columns) in enumerate(GRIDS):
        tokens = torch.zeros(rows * columns // 4, 1)
        wanted = hiprune(tokens, early[number], late[number], 9, side=columns // 2, alpha=alpha)
        assert kept[number] == wanted.kept_indices.tolist()


@pytest.mark.parametrize("keep", [5, 0.5])
def test_holov_ranks_by_the_last_layer(qwen, given, keep) -> None:
    """Within a chunk attention alone decides: what stays of each is what is looked at most."""
    looked = received(qwen, given, 3)
    for kept, row, (_, rows, columns) in zip(
        run(qwen, given, f"holov(keep={keep})"), looked, GRIDS, strict=True
    ):
        n = rows * columns // 4
        count = keep if isinstance(keep, int) else round(keep * n)
        chunks = int(1024 / 576 * n / count)
        assert len(kept) == count
        lengths = [n // chunks + (place < n % chunks) for place in range(chunks)]
        for start, length in zip(
            torch.tensor([0, *lengths]).cumsum(0).tolist(), lengths, strict=False
        ):
            inside = [place for place in kept if start <= place < start + length]
            best = sorted(range(start, start + length), key=lambda place: -row[place])
            assert inside == best[: len(inside)]


def test_a_quota_beyond_its_chunk_is_zeros_at_the_last_place(qwen, given, monkeypatch) -> None:
    """All weight in the first of seven chunks of five: its tokens, and seven vectors of zeros."""
    one = {name: value for name, value in given.items() if name != "pixel_values"}
    ids = given["input_ids"][:, : 2 + 35]
    one |= {
        "input_ids": torch.cat((ids, torch.tensor([[7, 8]])), 1),
        "image_grid_thw": torch.tensor(GRIDS[:1]),
    }
    one |= {
        "mm_token_type_ids": (one["input_ids"] == IMAGE).long(),
        "pixel_values": given["pixel_values"][:140],
    }
    looked = torch.full((35,), 1e-9)
    looked[:2] = 1.0
    from token_reduction.apply import received_attention

    monkeypatch.setattr(received_attention.ReceivedAttention, "of", lambda *_: (looked, None))
    assert (
        holov(torch.ones(35, 1), looked[None], 12, chunks=7).valid.tolist()
        == [True] * 5 + [False] * 7
    )
    seen = {}
    hook = qwen.model.language_model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad(), reduce_tokens(qwen, get_method("holov(keep=12, chunks=7)")) as record:
        qwen(**one)
    assert record.kept_order.tolist() == [0, 1, 2, 3, 4] + [-1] * 7
    hook.remove()
    visual = seen["inputs_embeds"][0, 2:14]
    assert visual[:5].abs().sum(-1).gt(0).all()
    assert not visual[5:].any()
    # The last of the image's places: row 4, column 6 behind two text tokens.
    assert seen["position_ids"][:, 0, 13].tolist()[-2:] == [6, 8]
