"""The cost model against an independent counter: `torch.utils.flop_counter` over `transformers`.

Models are built on the meta device, which runs every shape and no arithmetic. The counter sees matrix
products, convolutions and attention; it knows nothing of look-ups, norms, softmax or activations,
which the cost model does not count as FLOPs either.
"""

import json

import pytest
import torch
from counted_flops import counted

from costmodel import estimate, list_models, load_model
from costmodel.models import config_dict

pytestmark = pytest.mark.usefixtures("meta_tensors")
A100 = "nvidia-a100-sxm4-80gb"
TEXT_TOKENS = 40


def _build(name: str) -> torch.nn.Module:
    import transformers

    raw = config_dict(name)
    config = transformers.AutoConfig.for_model(**raw)
    kind = (
        transformers.AutoModelForCausalLM
        if load_model(name).vision is None
        else transformers.AutoModelForImageTextToText
    )
    with torch.device("meta"):
        return kind.from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16).eval()


#: Those whose tower takes crops and whose bridge is a module of its own.
CROPPED = [
    name for name in list_models()
    if load_model(name).vision is None or "llava" in load_model(name).model_type
]  # fmt: skip


@pytest.mark.parametrize("name", CROPPED)
def test_every_shipped_model_at_five_counts(name: str) -> None:
    config = load_model(name)
    model = _build(name)
    inner = model.model
    language = inner.language_model if hasattr(inner, "language_model") else inner
    if config.vision is not None:
        vision = config.vision
        crops = config.visual_input().crops
        tower = next(
            getattr(inner, n) for n in ("vision_tower", "image_tower") if hasattr(inner, n)
        )
        size = vision.image_size
        pixels = torch.empty(crops, 3, size, size, device="meta", dtype=torch.bfloat16)
        cost = estimate(name, A100)
        assert cost.stages["vision"].flops == counted(lambda: tower(pixels))[0]
        rows = torch.empty(
            cost.inputs["crops"], config.visual_input().projected_tokens // crops,
            config.projector.in_features, device="meta", dtype=torch.bfloat16,
        )  # fmt: skip
        projected, _ = counted(lambda: inner.multi_modal_projector(rows))
        assert cost.stages["projector"].flops == projected
    most = config.default_visual_tokens or 2048
    for visual in (1, 64, 144, most // 2, most):
        tokens = visual + TEXT_TOKENS
        embeds = torch.empty(
            1, tokens, config.text.hidden_size, device="meta", dtype=torch.bfloat16
        )

        def prefill(embeds: torch.Tensor = embeds) -> None:
            hidden = language(inputs_embeds=embeds, use_cache=True).last_hidden_state
            model.lm_head(hidden[:, -1:])

        cost = estimate(name, A100, visual_tokens=visual, text_tokens=TEXT_TOKENS)
        assert cost.stages["prefill"].flops == counted(prefill)[0]


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-onevision-7b"])
@pytest.mark.parametrize("logits", ["last", "all"])
def test_batch_and_logits(name: str, logits: str) -> None:
    config = load_model(name)
    model = _build(name)
    embeds = torch.empty(3, 104, config.text.hidden_size, device="meta", dtype=torch.bfloat16)

    def prefill() -> None:
        hidden = model.model.language_model(inputs_embeds=embeds).last_hidden_state
        model.lm_head(hidden if logits == "all" else hidden[:, -1:])

    cost = estimate(name, A100, visual_tokens=64, batch_size=3, logits=logits)
    assert cost.stages["prefill"].flops == counted(prefill)[0]


def test_siglip_with_its_pooling_head(tmp_path) -> None:
    """A config that does not say `vision_use_head` gets the head from transformers, and its FLOPs."""
    raw = config_dict("llava-onevision-7b")
    raw["vision_config"].pop("vision_use_head")
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    import transformers

    config = transformers.AutoConfig.for_model(**raw)
    with torch.device("meta"):
        tower = transformers.AutoModel.from_config(
            config.vision_config, attn_implementation="sdpa", dtype=torch.bfloat16
        ).eval()
    size = config.vision_config.image_size
    pixels = torch.empty(10, 3, size, size, device="meta", dtype=torch.bfloat16)
    cost = estimate(tmp_path, A100)
    assert cost.inputs["crops"] == 10
    assert cost.stages["vision"].flops == counted(lambda: tower(pixels))[0]


def test_eager_attention_counts_the_same() -> None:
    """Scores written out or not, the products are the same."""
    flash, eager = (estimate("llava-1.5-7b", A100, attention=a) for a in ("flash", "eager"))
    assert flash.totals.flops == eager.totals.flops
    assert eager.totals.activation_write_bytes > flash.totals.activation_write_bytes
