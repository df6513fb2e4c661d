"""FastVID against a slow float64 reading of it, and its edges."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from hardware_specs.errors import InvalidFileError, InvalidInputError
from token_reduction.fastvid import PoolingHead, fastvid


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def peaks(x: np.ndarray) -> np.ndarray:
    """Density times distance to the nearest denser token, token by token."""
    n, d = x.shape
    apart = np.array(
        [[np.linalg.norm(x[i] - x[j]) / np.sqrt(d) for j in range(n)] for i in range(n)]
    )
    density = [np.exp(-np.mean(np.sort(apart[i])[: min(4, n)] ** 2)) for i in range(n)]
    gap = [
        min((apart[i, j] for j in range(n) if density[j] > density[i]), default=apart.max())
        for i in range(n)
    ]
    return np.array(gap) * density


def reference(clip, features, attention, keep, segments, threshold, context, every, own):
    x, g, a = (np.asarray(part, np.float64) for part in (clip, features, attention))
    frames, each, _ = x.shape
    kept = int(keep * each)
    anchors = int(kept * context)
    salient = [sorted(range(each), key=lambda p: -a[t, p])[: kept - anchors] for t in range(frames)]
    out = {(t, p): x[t, p] for t in range(frames) for p in salient[t]}
    alike = [cosine(g[t], g[t + 1]) for t in range(frames - 1)]
    ends = set(sorted(range(frames - 1), key=lambda t: alike[t])[: segments - 1])
    ends |= {t for t in range(frames - 1) if alike[t] < threshold}
    bounds = [-1, *sorted(ends), frames - 1]
    for before, last in pairwise(bounds):
        scene = list(range(before + 1, last + 1))
        free = {t: [p for p in range(each) if p not in salient[t]] for t in scene}
        chosen = [t for t in scene if (last - t) % every == 0]
        many = min(anchors * len(scene) // len(chosen), each - kept + anchors)
        found = []
        for t in chosen:
            score = peaks(x[t, free[t]])
            found += [(t, free[t][i]) for i in np.argsort(-score, kind="stable")[:many]]
        joined = {place: [] for place in found}
        for t in scene:
            for p in free[t]:
                if found:
                    joined[max(found, key=lambda one: cosine(x[t, p], x[one]))].append(x[t, p])
        for place, members in joined.items():
            weight = max(1 / (len(members) + 1), own)
            mean = np.mean(members, axis=0) if members else 0
            out[place] = weight * x[place] + (1 - weight) * mean
    places = sorted(out)
    return [t * each + p for t, p in places], np.array([out[place] for place in places])


@pytest.mark.parametrize(
    ("frames", "each", "keep", "segments", "threshold", "context", "every", "own"),
    [
        (8, 20, 0.3, 3, -1.0, 0.4, 4, 0.6),
        (9, 12, 0.5, 2, -1.0, 0.5, 4, 0.2),
        (6, 12, 0.5, 1, 0.1, 0.5, 2, 0.0),
        (5, 10, 0.6, 5, 0.9, 0.4, 3, 0.6),
        (4, 10, 0.4, 1, -1.0, 0.0, 4, 0.6),
        (7, 6, 0.9, 1, -1.0, 0.9, 4, 0.6),  # more anchors than a frame has tokens for
    ],
)
def test_equals_the_slow_reference(
    draw, frames, each, keep, segments, threshold, context, every, own
) -> None:
    clip, features = draw(frames, each, 6, seed=frames), draw(frames, 5, seed=2)
    looked = draw(frames, each, seed=3).softmax(dim=-1)
    asked = (keep, segments, threshold, context, every, own)
    out = fastvid(
        clip, features, looked, keep, segments=segments, threshold=threshold, context=context,
        every=every, own=own,
    )  # fmt: skip
    kept, tokens = reference(clip, features, looked, *asked)
    assert out.kept_indices.tolist() == kept
    np.testing.assert_allclose(out.tokens, tokens, rtol=1e-4, atol=1e-5)


def test_the_published_setting(draw) -> None:
    """32 frames of 196: 12 salient each, and 7 anchors a frame less what scenes do not divide."""
    out = fastvid(draw(32, 196, 4), draw(32, 4, seed=1), draw(32, 196, seed=2), threshold=-1.0)
    assert 32 * 12 < len(out.tokens) <= 32 * 19


def test_what_does_not_fit(draw) -> None:
    clip, features, looked = draw(4, 9, 5), draw(4, 3), draw(4, 9)
    with pytest.raises(InvalidInputError, match="features"):
        fastvid(clip, features[:3], looked, 0.5)
    with pytest.raises(InvalidInputError, match="rounds to none"):
        fastvid(clip, features, looked, 0.1)


def test_the_pooling_head_is_transformers_own(tmp_path, draw) -> None:
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file
    from transformers.models.siglip.modeling_siglip import (
        SiglipMultiheadAttentionPoolingHead as Theirs,
    )

    config = transformers.SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_attention_heads=4
    )
    theirs, patches = Theirs(config).eval(), draw(3, 9, 16)
    path = tmp_path / "head.safetensors"
    save_file(
        {f"vision_model.head.{k}": v.contiguous() for k, v in theirs.state_dict().items()}, path
    )
    with torch.no_grad():
        features, looked = PoolingHead(config, str(path))(patches)
        torch.testing.assert_close(features, theirs(patches), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(looked.sum(dim=-1), torch.ones(3))
    config.hidden_size = 32
    with pytest.raises(InvalidFileError, match=r"head\.probe \(1, 1, 16\)"):
        PoolingHead(config, str(path))
