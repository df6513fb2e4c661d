"""The space of assumptions holds the conventions, and its sums are those of a layer by hand."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.audits.assumptions import Family, Reading
from costmodel.audits.counting import counted
from costmodel.audits.shapes import plain_model, shape_of
from costmodel.audits.table import Cell, parse_schedule
from costmodel.conventions import get_convention
from costmodel.conventions.shortv import frozen_layer_flops
from costmodel.models import list_models, load_model


def value(schedule, text, *, model="llava-1.5-7b", part="total", kv=False, full=576, **choices):
    quantity = "kv_cache" if kv else "flops"
    cell = Cell("r", model, parse_schedule(schedule, full), quantity, "1", 1.0, part=part)
    ready, _ = counted([cell], [None], [Reading()], kv=kv)
    family = np.array([Family(**choices)], dtype=float)
    return float(ready.values(family, np.array([text]))[0, 0, 0])


@pytest.mark.parametrize(
    ("convention", "text", "choices"),
    [
        ("fastv", 36, {"operations": 1, "ffn_matrices": 2}),
        ("sparsevlm", 119, {"operations": 1, "ffn_matrices": 3}),
        ("pyramiddrop", 0, {"operations": 1, "ffn_matrices": 3}),
        ("shortv", 64, {"operations": 2, "ffn_matrices": 3}),
        ("llava-mini", 40, {"operations": 2, "vision_tower": 1, "projector": 1}),
    ],
)
def test_every_closed_form_is_a_set_of_the_space(convention, text, choices):
    model = load_model("llava-1.5-7b")
    per_layer = [576.0] * 2 + [57.6] * 30
    found = get_convention(convention).evaluate(
        model, visual_tokens=576, text_tokens=text, llm_visual_tokens_per_layer=per_layer
    )
    assert value("0:V;2:0.1V", text, **choices) == pytest.approx(found.totals.flops, rel=1e-12)


def test_frozen_layers():
    model = load_model("llava-1.5-7b")
    live = value("0:V", 64) * 13 / 32
    frozen = 19 * frozen_layer_flops(model.text, 576, 64)
    assert value("0:V;13:frozen", 64) == pytest.approx(live + frozen, rel=1e-12)


def test_attention_head_and_grouped_queries_by_hand():
    d, layers, s = 4096, 32, 100
    full = value("0:60", 40) - value("0:60", 40, attention=0.0)
    assert full == 2 * layers * 2 * s * s * d
    causal = value("0:60", 40, attention=0.5) - value("0:60", 40, attention=0.0)
    assert causal == full / 2
    head = value("0:60", 40, output_head=1) - value("0:60", 40)
    assert head == 2 * s * d * 32064
    # LLaVA-OneVision: K and V are 512 wide, not 3584, in 28 layers.
    options = {"model": "llava-onevision-7b", "part": "llm"}
    saved = value("0:60", 40, **options) - value("0:60", 40, grouped_queries=1, **options)
    assert saved == 2 * 28 * s * 2 * 3584 * (3584 - 512)


def test_the_visual_share_is_a_difference():
    share = value("0:128", 30, counted=1)
    assert share == pytest.approx(value("0:128", 30) - value("0:0", 30), rel=1e-12)
    assert value("0:0", 30, counted=1) == 0
    frozen = value("0:V;13:frozen", 30, counted=1)
    assert frozen == pytest.approx(value("0:V;13:frozen", 30) - value("0:0", 30), rel=1e-12)


def test_kv_cache_by_hand():
    # 2 x 4096 x 2 B x 32 layers = 0.5 MiB a token
    assert value("0:V", 0, kv=True) == 576 * 2**19
    assert value("0:V;2:128", 10, kv=True) == (2 * 576 + 30 * 128 + 32 * 10) * 2**14


def test_parts():
    tower = value("0:V", 40, part="vision", vision_tower=1)
    assert round(tower / 1e12, 3) == 0.349  # as LLaVA-Mini prints it
    assert round(value("0:V", 40, part="projector") / 1e12, 3) == 0.024
    assert round(value("0:V", 40, part="llm", vision_tower=2) / 1e12, 3) == 8.177


@pytest.mark.parametrize("name", list_models())
def test_every_shipped_model_has_a_shape(name):
    shape, text = shape_of(plain_model(name)), load_model(name).text
    assert (shape.d, shape.layers, shape.vocab) == (
        text.hidden_size,
        text.num_layers,
        text.vocab_size,
    )
    assert (shape.projector > 0) == (load_model(name).vision is not None)
