"""What the methods that rank tokens share: padded batches, own products, what they refuse."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hardware_specs.errors import InvalidFileError, InvalidInputError, UnsupportedError  # noqa: E402
from token_reduction import get_method, observe, reduce_tokens  # noqa: E402

NEW = 4


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
def test_a_padded_batch_answers_like_its_rows_alone(method, kind, models, new_case, in_double):
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
        (get_method("cdpruner", keep=64, embeddings="nowhere"), InvalidFileError, "no such file"),
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
