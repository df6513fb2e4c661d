"""VisionZip, FasterVLM, VisPruner, HiRED, PyramidDrop, DART and SparseVLM in a model, by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hardware_specs.errors import InvalidFileError, InvalidInputError, UnsupportedError  # noqa: E402
from token_reduction import get_method, observe, reduce_tokens  # noqa: E402
from token_reduction.sparsevlm import recycle  # noqa: E402
from token_reduction.tokens.reduced import Selection  # noqa: E402

NEW = 4


def generated(model, case, method):
    with torch.no_grad(), reduce_tokens(model, method) as record:
        first = model(**case.inputs, logits_to_keep=1).logits[0, -1]
        output = model.generate(**case.inputs, max_new_tokens=NEW, do_sample=False)
    return output[0, case.inputs["input_ids"].shape[1] :].tolist(), first, record


def in_double(model, case):
    """The same in float64, for a method whose chain of near ties would flip in float32."""
    inputs = {
        name: value.double() if value.is_floating_point() else value
        for name, value in case.inputs.items()
    }
    return copy.deepcopy(model).double(), replace(case, inputs=inputs)


def agree(model, case, method, hand, embeddings, **hooks):
    answer, first, record = generated(model, case, method)
    reference = hand(model)
    expected, logits = reference.generate(embeddings, NEW, **hooks)
    assert answer == expected
    torch.testing.assert_close(first.double(), logits, rtol=1e-3, atol=1e-4)
    assert record.sequence_lengths == [*reference.entering[:4], reference.leaving]
    return record


class TowerView:
    """Class attention per head and keys of one layer, and the features, from the tower's states."""

    def __init__(self, tower, pixels, depth=-2):
        with torch.no_grad():
            states = tower(pixels, output_hidden_states=True).hidden_states
        layer = tower.encoder.layers[depth]
        entering = states[depth - 1] if depth < 0 else states[depth]
        normed = layer.layer_norm1(entering).double()

        def heads(projection):
            out = normed @ projection.weight.double().T + projection.bias.double()
            return out.view(*out.shape[:2], 4, -1).transpose(1, 2)

        q, k = heads(layer.self_attn.q_proj), heads(layer.self_attn.k_proj)
        logits = q[:, :, :1] @ k.transpose(-1, -2) * k.shape[-1] ** -0.5
        self.row = logits.softmax(-1)[:, :, 0]
        self.metric = k.mean(1)
        self.features = states[-2].double()


def project(model, rows):
    return model.model.multi_modal_projector(rows.to(model.dtype).unsqueeze(0))[0]


def test_visionzip(llava, cases, hand, sequence):
    case = cases["llava"]
    view = TowerView(llava.model.vision_tower, case.inputs["pixel_values"])
    x, metric = view.features[0], view.metric[0]
    attention = view.row[0].sum(0)[1:]
    best = attention.argsort(descending=True)[:26] + 1  # 32 in all: 27 dominant, 5 contextual
    dominant = sorted([0, *best.tolist()])
    rest = [place for place in range(577) if place not in dominant]
    step = len(rest) // 5
    targets = rest[::step][:5]
    joining = [place for place in rest if place not in targets]
    unit = metric / metric.norm(dim=1, keepdim=True)
    group = (unit[joining] @ unit[targets].T).argmax(1)
    rows = [x[place] for place in dominant]
    for number, place in enumerate(targets):
        members = [p for p, g in zip(joining, group.tolist(), strict=True) if g == number]
        rows.append(x[place] + (x[members].mean(0) if members else 0))
    visual = project(llava, torch.stack(rows))
    record = agree(
        llava, case, get_method("visionzip", keep=32), hand, sequence(llava, case, visual)
    )
    assert record.visual_tokens == (576, 32)
    assert record.kept_indices[0].tolist() == [place - 1 for place in dominant[1:]]


def test_a_videos_class_token_is_not_there_twice(models, cases):
    model, case = models["video-llava"], cases["video-llava:video"]
    _, _, record = generated(model, case, get_method("visionzip", keep=32))
    assert record.visual_tokens == (435, 3 * 32)


def test_fastervlm(llava, cases, features, hand, sequence):
    case = cases["llava"]
    view = TowerView(llava.model.vision_tower, case.inputs["pixel_values"])
    kept = sorted(view.row[0, :, 1:].mean(0).argsort(descending=True)[:40].tolist())
    embeddings = sequence(llava, case, features(llava, case)[kept])
    record = agree(llava, case, get_method("fastervlm", keep=40), hand, embeddings)
    assert record.kept_indices[0].tolist() == kept


def test_vispruner(llava, cases, features, hand, sequence):
    llava, case = in_double(llava, cases["llava"])
    view = TowerView(llava.model.vision_tower, case.inputs["pixel_values"])
    order = view.row[0, :, 1:].mean(0).argsort(descending=True).tolist()
    x = view.features[0, 1:]
    unit = x / x.norm(dim=1, keepdim=True)
    chosen, left = order[:20], order[20:]
    while len(left) > 20:
        even, odd = left[::2], left[1::2]
        go = min(8, len(left) - 20, len(even))
        like = (unit[even] @ unit[odd].T).max(1).values.argsort(descending=True).tolist()
        left = [even[i] for i in like[go:]] + odd
    kept = sorted(chosen + left)
    embeddings = sequence(llava, case, features(llava, case)[kept])
    record = agree(llava, case, get_method("vispruner", keep=40, important=0.5), hand, embeddings)
    assert record.kept_indices[0].tolist() == kept


@pytest.fixture(scope="session")
def joint_space(tmp_path_factory):
    """CLIP's projection of 32 channels into a space of 16, and two embeddings of a question."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("clip") / "joint_space.safetensors"
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "visual_projection.weight": torch.randn(16, 32, generator=generator),
        "text_embeds": torch.randn(2, 16, generator=generator),
    }
    save_file(tensors, path)
    return path


def test_cdpruner(llava, cases, features, hand, sequence, joint_space):
    llava, case = in_double(llava, cases["llava"])
    tower = llava.model.vision_tower
    view = TowerView(tower, case.inputs["pixel_values"])
    x = view.features[0, 1:]
    from safetensors.torch import load_file

    clip = {name: value.double() for name, value in load_file(joint_space).items()}
    images = tower.post_layernorm(x).float().double() @ clip["visual_projection.weight"].T
    images, texts, unit = (
        v / v.norm(dim=1, keepdim=True) for v in (images, clip["text_embeds"], x)
    )
    distance = -(images @ texts.T).mean(1)
    relevance = (distance - distance.min() + 1e-6) / (distance.max() - distance.min())
    kernel = relevance[:, None] * (unit @ unit.T) * relevance
    chosen = [int(kernel.diagonal().argmax())]
    while len(chosen) < 8:
        block = kernel[chosen][:, chosen]
        rows = kernel[chosen]
        left = kernel.diagonal() - (rows * torch.linalg.solve(block, rows)).sum(0)
        left[chosen] = -torch.inf
        chosen.append(int(left.argmax()))
    kept = sorted(chosen)
    embeddings = sequence(llava, case, features(llava, case)[kept])
    method = get_method("cdpruner", keep=8, embeddings=joint_space)
    record = agree(llava, case, method, hand, embeddings)
    assert record.kept_indices[0].tolist() == kept
    assert not record.notes


def test_cdpruner_without_a_file_says_that_it_guesses(llava, cases):
    _, _, record = generated(llava, cases["llava"], get_method("cdpruner", keep=8, embeddings=None))
    assert record.visual_tokens == (576, 8)
    assert "random joint space" in record.notes[0]


def test_cdpruner_needs_a_projection_of_its_tower(models, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"visual_projection.weight": torch.ones(16, 31), "text_embeds": torch.ones(16)}, path)
    method = get_method("cdpruner", keep=8, embeddings=path)
    with (
        pytest.raises(InvalidFileError, match=r"needs \[g, 32\]"),
        reduce_tokens(models["llava"], method),
    ):
        pass
    save_file({"visual_projection.weight": torch.ones(16, 32)}, path)
    with (
        pytest.raises(InvalidFileError, match="0 tensors named"),
        reduce_tokens(models["llava"], method),
    ):
        pass


def test_hired_on_one_crop_takes_the_whole_budget(llava, cases, features, hand, sequence):
    case = cases["llava"]
    view = TowerView(llava.model.vision_tower, case.inputs["pixel_values"])
    kept = sorted(view.row[0, :, 1:].sum(0).argsort(descending=True)[:57].tolist())
    embeddings = sequence(llava, case, features(llava, case)[kept])
    agree(llava, case, get_method("hired", keep=0.1, alpha=0.5), hand, embeddings)


def test_hired_spends_a_budget_per_tile_and_keeps_newlines(models, cases, features, hand, sequence):
    model, case = models["llava-next"], cases["llava-next"]
    pixels = case.inputs["pixel_values"][0]
    early = TowerView(model.model.vision_tower, pixels, 0).row[..., 1:].sum(1)
    late = TowerView(model.model.vision_tower, pixels).row[..., 1:].sum(1)
    budget = int(5 * 144 * 0.2)
    whole = int(budget * 0.5)
    marked = early[0].argsort(descending=True)[: int(144 * 0.5)]
    share = torch.bincount(marked // 36, minlength=4).float() / 72
    counts = [whole, *(int(c) for c in share * (budget - whole))]
    stays = torch.zeros(5, 144, dtype=torch.bool)
    for tile, count in enumerate(counts):
        stays[tile, late[tile].argsort(descending=True)[:count]] = True
    # 100 x 160 on 2 x 2 tiles of 12 x 12: scaled by 1.05 to 105 rows of 168, so unpadding drops
    # (24 - 15) // 2 = 4 rows above and below; every row ends with a newline token.
    mosaic = stays[1:].view(2, 2, 12, 12).permute(0, 2, 1, 3).reshape(24, 24)[4:20]
    lines = torch.cat((mosaic, torch.ones(16, 1, dtype=torch.bool)), dim=1)
    mask = torch.cat((stays[0], lines.flatten()))
    assert len(mask) == case.visual == 544
    embeddings = sequence(model, case, features(model, case)[mask])
    record = agree(model, case, get_method("hired", keep=0.2, alpha=0.5), hand, embeddings)
    assert record.tokens_after == [int(mask.sum())]


def text_and(case, length, left, visual):
    """Rows of a sequence with `left` visual tokens: all text and these of them."""
    text = [i for i in range(length) if not case.start <= i < case.start + left]
    return sorted([*text, *(case.start + int(v) for v in visual)])


@pytest.mark.parametrize("kind", ["llava", "llava-next", "llava-onevision"])
def test_pyramiddrop_renumbers(kind, models, cases, features, hand, sequence):
    model, case = models[kind], cases[kind]
    embeddings = sequence(model, case, features(model, case))
    left = [case.visual]
    reference = hand(model)

    def drop(number, x, _weights, positions):
        if number not in (1, 3):
            return None
        q, k, _ = reference.project(number, x, positions)
        row = ((q[:, -1:] @ k.transpose(1, 2)) * q.shape[-1] ** -0.5).softmax(-1)[:, 0].mean(0)
        image = row[case.start : case.start + left[0]]
        count = int(left[0] * 0.5)
        rows = text_and(case, len(x), left[0], image.argsort(descending=True)[:count])
        left[0] = count
        return rows

    method = get_method("pyramiddrop", keep=0.5, layers=(1, 3))
    record = agree(model, case, method, hand, embeddings, before_layer=drop, renumber=True)
    assert list(record.kept_by_layer) == [1, 3]
    assert record.visual_tokens == (case.visual, case.visual // 2 // 2)


@pytest.mark.parametrize("order", ["norm", "set"])
def test_dart(order, llava, cases, features, hand, sequence):
    case = cases["llava"]
    embeddings = sequence(llava, case, features(llava, case))
    reference = hand(llava)
    norm = llava.model.language_model.norm

    def drop(number, x, _weights, _positions):
        if number != 2:
            reference.before = x
            return None
        keys = reference.project(1, reference.before, torch.arange(len(x)))[1]
        size = keys.abs().sum(dim=(0, 2))
        image = size[case.start : case.start + 576].argsort(descending=True)[:3]
        text = size[case.start + 576 :].argsort(descending=True)[:2] + case.start + 576
        turns = [*text.tolist(), *(image + case.start).tolist()]
        if order == "set":
            turns = list({*(image + case.start).tolist(), *text.tolist()})
        states = reference._norm(norm, x)
        unit = states / states.norm(dim=1, keepdim=True)
        taken = image.tolist()
        for pivot in turns:
            like = unit[case.start : case.start + 576] @ unit[pivot]
            like[taken] = torch.inf
            taken += like.argsort()[:8].tolist()
        return text_and(case, len(x), 576, sorted(taken))

    method = get_method("dart", keep=40, layer=2, image_pivots=3, text_pivots=2, order=order)
    record = agree(llava, case, method, hand, embeddings, before_layer=drop)
    assert record.visual_tokens == (576, 43)


def test_sparsevlm_recycles(llava, cases, features, hand, sequence):
    case = cases["llava"]
    embeddings = sequence(llava, case, features(llava, case))
    image, text = embeddings[case.start : case.start + 576], embeddings[case.start + 576 :]
    rating = (image @ text.T).softmax(-1).mean(0)
    raters = (rating > rating.mean()).nonzero().flatten()
    left = [576]
    counts = {1: 200, 3: 60}

    def drop(number, x, weights, _positions):
        if number not in counts:
            return None
        stop = case.start + left[0]
        row = weights.mean(0)[stop + raters].mean(0)[case.start : stop]
        kept = row.argsort(descending=True)[: counts[number]].sort().values
        states = x[case.start : stop]
        new = recycle(states, Selection(kept, kept, row))
        left[0] = counts[number] + len(new)
        return torch.cat((x[: case.start], states[kept], new, x[stop:]))

    method = get_method("sparsevlm", keep=192, layers=(0, 2), counts=(200, 60))
    record = agree(llava, case, method, hand, embeddings, before_layer=drop, renumber=True)
    # 376 go, 112 of them are recycled in 12 clusters; of 212, 152 go, 45 recycled in 5.
    assert record.sequence_lengths == [585, 9 + 212, 9 + 212, 9 + 65, 9 + 65]
    assert record.visual_tokens == (576, 65)
    assert len(record.kept_indices[0]) <= 60


@pytest.mark.parametrize(
    "method",
    [
        get_method("visionzip", keep=32),
        get_method("fastervlm", keep=0.1),
        get_method("vispruner", keep=30, important=0.5),
        get_method("hired", keep=0.2, alpha=0.5),
        get_method("pyramiddrop", keep=0.5, layers=(1, 2)),
        get_method("dart", keep=16, layer=2, image_pivots=2, text_pivots=2, order="norm"),
        get_method("sparsevlm", keep=None, layers=(0, 1), counts=(60, 20)),
    ],
    ids=lambda method: method.name,
)
@pytest.mark.parametrize("kind", ["llava", "llava-next"])
def test_a_padded_batch_answers_like_its_rows_alone(method, kind, models, new_case):
    model = models[kind]
    with torch.no_grad():
        cases = [new_case(model, kind, seed=seed) for seed in (1, 2, 3)]
        if method.name == "vispruner":
            made = [in_double(model, case) for case in cases]
            model, cases = made[0][0], [case for _, case in made]
        rows = []
        for number, case in enumerate(cases):
            extra = torch.arange(10, 10 + number).unsqueeze(0)
            rows.append({
                **case.inputs,
                "input_ids": torch.cat((case.inputs["input_ids"], extra), dim=1),
            })  # fmt: skip
        width = max(row["input_ids"].shape[1] for row in rows)
        ids = torch.zeros(3, width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            count = row["input_ids"].shape[1]
            ids[number, width - count :], mask[number, width - count :] = row["input_ids"][0], 1
        batch = {"input_ids": ids, "attention_mask": mask}
        for name in rows[0]:
            if name != "input_ids":
                batch[name] = torch.cat([row[name] for row in rows])
        with reduce_tokens(model, method):
            together = model.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, -NEW:]
            for number, row in enumerate(rows):
                alone = model.generate(**row, max_new_tokens=NEW, do_sample=False)[0, -NEW:]
                assert together[number].tolist() == alone.tolist()


def rounds(left, wanted):
    """VisPruner's rounds: half the tokens left against the other half, eight go at a time."""
    total = 0
    while left > wanted:
        even, odd = (left + 1) // 2, left // 2
        total += 2 * even * odd * 32
        left -= min(8, left - wanted, even)
    return total


ROW = 2 * 577 * 32
#: n = 576, w = 32, d = 48 = h e, vision head 8, s = 585, then what earlier stages left.
PRODUCTS = [
    (get_method("visionzip", keep=32), ROW + 2 * 545 * 5 * 8 + 2 * 545 * 5 * 32),
    (get_method("fastervlm", keep=40), ROW),
    (get_method("vispruner", keep=560, important=0.5), ROW + rounds(296, 280)),
    (get_method("hired", keep=0.1, alpha=0.5), 2 * ROW),
    (
        get_method("pyramiddrop", keep=0.5, layers=(1, 3)),
        sum(2 * s * 48 * 48 + 2 * 48 * 48 + 2 * s * 48 for s in (585, 297)),
    ),
    (
        get_method("dart", keep=40, layer=2, image_pivots=3, text_pivots=2, order="norm"),
        2 * 5 * 576 * 48,
    ),
    (
        get_method("sparsevlm", keep=192, layers=(0, 2), counts=(200, 60)),
        2 * 576 * 5 * 48 + 2 * 5 * (585 + 221) * 48 + 2 * (12 * 112 + 5 * 45) * 48,
    ),
]


@pytest.mark.parametrize(("method", "flops"), PRODUCTS, ids=[m.name for m, _ in PRODUCTS])
def test_own_products_are_the_documented_ones(method, flops, llava, cases):
    inside, started = [0], []
    with (
        torch.no_grad(),
        reduce_tokens(llava, method),
        FlopCounterMode(display=False) as counter,
    ):

        def told(_name, begins):
            if begins:
                started.append(counter.get_total_flops())
            else:
                inside[0] += counter.get_total_flops() - started.pop()

        with observe(told):
            llava(**cases["llava"].inputs)
    assert inside[0] == flops


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (get_method("cdpruner", keep=64, embeddings="nowhere"), InvalidFileError, "no readable"),
        (
            get_method("pyramiddrop", keep=0.5, layers=(2, 4)),
            InvalidInputError,
            "last that can be is 3",
        ),
        (
            get_method("sparsevlm", keep=192, layers=(2, 3), counts=None),
            InvalidInputError,
            "can be is 2",
        ),
        (
            get_method("sparsevlm", keep=192, layers=(0, 1), counts=None),
            InvalidInputError,
            "one count per",
        ),
        (get_method("dart", keep=40, layer=0), InvalidInputError, "at least 1"),
        (get_method("dart", keep=40, layer=9), InvalidInputError, "layers 0 to 3"),
    ],
)
def test_what_cannot_be(method, error, message, llava):
    with pytest.raises(error, match=message), reduce_tokens(llava, method):
        pass


@pytest.mark.parametrize("name", ["visionzip", "fastervlm", "vispruner", "hired", "cdpruner"])
def test_siglip_has_no_class_token(name, models):
    with (
        pytest.raises(UnsupportedError, match="no class token"),
        reduce_tokens(models["llava-onevision"], get_method(name, keep=32)),
    ):
        pass


def test_hired_takes_no_videos(models, cases):
    model, case = models["video-llava"], cases["video-llava:video"]
    with pytest.raises(UnsupportedError, match="not on videos"):
        generated(model, case, get_method("hired", keep=0.2, alpha=0.5))
