"""ToMe, EViT, ATS and CrossGET against a vision tower written out layer by layer."""

from __future__ import annotations

import copy

import pytest
import torch

from hardware_specs.errors import InvalidFileError
from token_reduction import get_method, reduce_tokens
from token_reduction.crossget import crossget


class TowerByHand:
    """CLIP or SigLIP, one crop, float64, with a method's step between attention and MLP."""

    def __init__(self, tower, pixels):
        self.layers = tower.encoder.layers
        with torch.no_grad():
            x = tower.embeddings(pixels)
            if hasattr(tower, "pre_layrnorm"):
                x = tower.pre_layrnorm(x)
        self.x = x[0].double()
        self.states = []
        self.entering = []

    @staticmethod
    def norm(module, x):
        mean, spread = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        scaled = (x - mean) / (spread + module.eps).sqrt()
        return scaled * module.weight.double() + module.bias.double()

    @staticmethod
    def linear(module, x):
        return x @ module.weight.double().T + module.bias.double()

    def heads(self, module, x):
        return self.linear(module, x).view(len(x), 4, -1).transpose(0, 1)

    def run(self, step):
        """`step(number, layer, x)` returns what enters the MLP."""
        for number, layer in enumerate(self.layers):
            x = self.x
            if number == 0:
                x = getattr(step, "start", lambda x: x)(x)
            self.entering.append(len(x))
            x = step(number, self, layer, x)
            h = self.linear(layer.mlp.fc1, self.norm(layer.layer_norm2, x))
            h = (
                h * torch.sigmoid(1.702 * h)
                if self.quick
                else torch.nn.functional.gelu(h, approximate="tanh")
            )
            self.x = x + self.linear(layer.mlp.fc2, h)
            self.states.append(self.x)
        return self

    @property
    def quick(self):
        return self.layers[0].mlp.config.hidden_act == "quick_gelu"

    def attention(self, layer, x, bias=None):
        h = self.norm(layer.layer_norm1, x)
        a = layer.self_attn
        q, k, v = (self.heads(p, h) for p in (a.q_proj, a.k_proj, a.v_proj))
        logits = (q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
        if bias is not None:
            logits = logits + bias
        return logits.softmax(-1), k, v

    def out(self, layer, weights, v):
        mixed = (weights @ v).transpose(0, 1).flatten(1)
        return self.linear(layer.self_attn.out_proj, mixed)


def tome_step(merges, has_class=True):
    sizes = [None]

    def step(number, tower, layer, x):
        size = torch.ones(len(x), dtype=torch.float64) if sizes[0] is None else sizes[0]
        weights, k, v = tower.attention(layer, x, size.log())
        x = x + tower.out(layer, weights, v)
        metric = k.mean(0)
        metric = metric / metric.norm(dim=1, keepdim=True)
        even, odd = list(range(0, len(x), 2)), list(range(1, len(x), 2))
        similarity = metric[even] @ metric[odd].T
        if has_class:
            similarity[0] = -torch.inf
        best, target = similarity.max(1)
        order = best.argsort(descending=True).tolist()
        gone, stay = order[: merges[number]], order[merges[number] :]
        stay = sorted(stay) if has_class else stay
        total = {place: x[place] * size[place] for place in odd}
        count = {place: size[place] for place in odd}
        for e in gone:
            place = odd[int(target[e])]
            total[place] = total[place] + x[even[e]] * size[even[e]]
            count[place] = count[place] + size[even[e]]
        kept = [even[e] for e in stay]
        sizes[0] = torch.stack([*(size[p] for p in kept), *(count[p] for p in odd)])
        return torch.stack([*(x[p] for p in kept), *(total[p] / count[p] for p in odd)])

    return step


def evit_step(layers, keep):
    def step(number, tower, layer, x):
        weights, _, v = tower.attention(layer, x)
        x = x + tower.out(layer, weights, v)
        if number not in layers:
            return x
        row = weights[:, 0, 1:].mean(0)
        count = -int(-keep * len(row) // 1)
        order = row.argsort(descending=True)
        kept, rest = order[:count] + 1, order[count:] + 1
        fused = (row[rest - 1, None] * x[rest]).sum(0, keepdim=True)
        return torch.cat((x[:1], x[kept], fused))

    return step


def ats_step(layers, references):
    def step(number, tower, layer, x):
        weights, _, v = tower.attention(layer, x)
        if number not in layers:
            return x + tower.out(layer, weights, v)
        lengths = v.transpose(0, 1).flatten(1).norm(dim=1)[1:]
        score = weights[:, 0, 1:].sum(0) * lengths
        score = score / score.sum()
        rank = score.argsort(stable=True)
        level = score[rank].cumsum(0)
        level = (level - level.min()) / (level.max() - level.min())
        start = level[level > 0].min()
        samples = references - 1
        wanted = start + (1 - start) * torch.arange(samples) / (samples - 1)
        hidden = max(len(score) - samples, 0)
        near = (wanted[:, None] - level[hidden:]).abs().argmin(1) + hidden
        rows = [0, *(int(rank[place]) + 1 for place in near.unique())]
        return x[rows] + tower.out(layer, weights[:, rows], v)

    return step


def crossget_step(merges, cross):
    sizes = [None]

    def step(number, tower, layer, x):
        x = torch.cat((x[:-1], (x[-1] + cross[number])[None]))
        size = torch.ones(len(x), 1, dtype=torch.float64) if sizes[0] is None else sizes[0]
        weights, k, v = tower.attention(layer, x, size[:, 0].log())
        x = x + tower.out(layer, weights, v)
        merged = crossget(x, k.mean(0), weights.mean(0), merges[number], size=size)
        sizes[0] = merged.sizes
        return merged.tokens

    step.start = lambda x: torch.cat((x, x[:1]))
    return step


@pytest.fixture
def like_tower(agree, sequence, project):
    """Generation under a method equals hand-written tower and language model; the record."""

    def check(model, case, method, tower, visual):
        record = agree(model, case, method, sequence(model, case, project(model, visual)))
        assert record.vision_lengths == [*tower.entering, len(tower.x)]
        assert record.visual_tokens == (case.visual, len(visual))
        return record

    return check


def tower_of(model, case):
    return TowerByHand(model.model.vision_tower, case.inputs["pixel_values"])


def test_tome_merges_r_pairs_per_layer(llava, cases, like_tower):
    case = cases["llava"]
    tower = tower_of(llava, case).run(tome_step([40, 40, 40, 40]))
    assert tower.entering == [577, 537, 497, 457]
    method = get_method("tome", r=40)
    like_tower(llava, case, method, tower, tower.states[-2][1:])


def test_tome_spreads_what_keep_asks_for_over_the_layers_that_are_read(llava, cases, like_tower):
    case = cases["llava"]
    # 576 -> 400 in three layers: 59, 59, 58; the last layer, which nobody reads, merges nothing.
    tower = tower_of(llava, case).run(tome_step([59, 59, 58, 0]))
    like_tower(llava, case, get_method("tome", keep=400), tower, tower.states[-2][1:])


def test_evit_keeps_and_fuses(llava, cases, like_tower):
    case = cases["llava"]
    tower = tower_of(llava, case).run(evit_step((1, 2), 0.5))
    assert tower.entering == [577, 577, 290, 147]  # ceil(288) + fused, ceil(144.5) + fused
    method = get_method("evit", keep=0.5, layers=(1, 2))
    like_tower(llava, case, method, tower, tower.states[-2][1:])


def test_ats_samples_as_many_as_the_data_say(llava, cases, like_tower):
    case = cases["llava"]
    tower = tower_of(llava, case).run(ats_step((1, 2), 120))
    assert tower.entering[2] < 121
    method = get_method("ats", keep=120, layers=(1, 2))
    like_tower(llava, case, method, tower, tower.states[-2][1:])


def test_ats_cumulates_in_single_precision(llava, cases):
    """In bfloat16 a running sum of 576 shares stops growing; the scores are summed in float32."""
    method = get_method("ats", layers=(1, 2))
    counts = []
    for dtype in (torch.float32, torch.bfloat16):
        model = copy.deepcopy(llava).to(dtype)
        inputs = {**cases["llava"].inputs}
        inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        with torch.no_grad(), reduce_tokens(model, method) as record:
            model(**inputs)
        counts.append(record.visual_tokens[1])
    assert abs(counts[0] - counts[1]) < 0.03 * counts[0]


def test_crossget_with_learned_cross_tokens(llava, cases, like_tower, tmp_path):
    from safetensors.torch import save_file

    case = cases["llava"]
    cross = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(5))
    save_file({"encoder.cross_image": cross}, tmp_path / "cross.safetensors")
    tower = tower_of(llava, case).run(crossget_step([13] * 4, cross[0].double()))
    assert tower.entering == [578, 565, 552, 539]
    method = get_method("crossget", weights=str(tmp_path / "cross.safetensors"))
    # The cross token, last, goes to the projector with the patches: 578 - 3 * 13 - 1 = 538.
    record = like_tower(llava, case, method, tower, tower.states[-2][1:])
    assert record.notes == []
    assert record.visual_tokens == (576, 538)


def test_crossget_without_weights_says_that_they_are_random(llava, cases):
    with torch.no_grad(), reduce_tokens(llava, "crossget") as record:
        llava(**cases["llava"].inputs)
        first = record.visual_tokens
        llava(**cases["llava"].inputs)
    assert first == record.visual_tokens == (576, 538)
    assert len(record.notes) == 1
    assert "random cross tokens" in record.notes[0]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"cross_image": (1, 3, 32)}, r"\(3, 32\), this tower needs \(4, 32\)"),
        ({"weight": (2, 2)}, "holds 0 tensors named ...cross_image"),
        (None, "no readable safetensors"),
    ],
)
def test_crossget_weights_that_do_not_fit(tensors, message, llava, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "cross.safetensors"
    if tensors is None:
        path.write_bytes(b"not a tensor")
    else:
        save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with (
        pytest.raises(InvalidFileError, match=message),
        reduce_tokens(llava, get_method("crossget", weights=str(path))),
    ):
        pass


def test_tome_needs_no_class_token(models, cases, like_tower):
    """SigLIP in LLaVA-OneVision, tile by tile; no token is protected and none is stripped."""
    model, case = models["llava-onevision"], cases["llava-onevision"]
    crops = []
    for crop in case.inputs["pixel_values"][0]:
        tower = TowerByHand(model.model.vision_tower, crop[None])
        crops.append(tower.run(tome_step([10] * 4, has_class=False)))
    visual = torch.cat([tower.states[-1] for tower in crops])
    like_tower(model, case, get_method("tome", r=10), crops[0], visual)


def test_crops_that_shrink_by_different_amounts(models, cases, agree, sequence, project):
    """ATS on tiles: each crop as if alone, padded only between the layers."""
    model, case = models["llava-next"], cases["llava-next"]
    crops = [
        TowerByHand(model.model.vision_tower, crop[None]).run(ats_step((1, 2), 60))
        for crop in case.inputs["pixel_values"][0]
    ]
    lengths = [len(tower.states[-2]) for tower in crops]
    assert len(set(lengths)) > 1
    visual = torch.cat([tower.states[-2][1:] for tower in crops])
    method = get_method("ats", keep=60, layers=(1, 2))
    record = agree(model, case, method, sequence(model, case, project(model, visual)))
    assert record.visual_tokens == (case.visual, sum(lengths) - 5)


@pytest.mark.parametrize("name", ["tome", "crossget", "evit", "ats"])
def test_a_traced_run_says_where_every_patch_went(name, llava, cases):
    case = cases["llava"]
    settings = {"layers": (1, 2)} if name in ("evit", "ats") else {}
    with torch.no_grad(), reduce_tokens(llava, get_method(name, **settings), trace=True) as record:
        llava(**case.inputs)
    _, after = record.visual_tokens
    (sources,) = record.sources
    assert sources.shape == (576,)
    used = sources[sources >= 0].unique()
    # The cross token stands for itself alone.
    assert len(used) == after - (name == "crossget")
    if name == "ats":
        (kept,) = record.kept_indices
        assert sorted(kept.tolist()) == (sources >= 0).nonzero().flatten().tolist()
    else:
        assert int(sources.min()) >= 0
    if name == "evit":
        (kept,) = record.kept_indices
        # Kept twice means: still a token of one's own.
        counts = torch.bincount(sources, minlength=after)
        assert (counts[sources[kept]] == 1).all()


def test_an_untraced_run_leaves_no_trail(llava, cases):
    with torch.no_grad(), reduce_tokens(llava, "tome") as record:
        llava(**cases["llava"].inputs)
    assert record.sources is None
    assert record.kept_indices is None
