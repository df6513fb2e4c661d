"""The cost model against `torch.utils.flop_counter`, with a method at work inside a model.

Tiny random models of two families run on the CPU under `reduce_tokens`, and what the counter sees is
split by stage: a method's own work by `observe`, the rest by module. Differences must be 0.

The counter sees matrix products, convolutions and attention. It does not see, and the cost model does
not count as FLOPs: sorts, top-k, softmax, norms, cosine normalisation, gathers, scatters, pooling and
minima (all of M3, of the two samplers, of VTW, and DivPrune's picks). Attention runs by its decomposed
(math) kernel here, since the counter has no entry for the CPU's fused one.
"""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from costmodel import estimate, load_model  # noqa: E402
from costmodel.methods import get_method_cost  # noqa: E402
from costmodel.plans import get_plan  # noqa: E402
from costmodel.precision import parse_precision  # noqa: E402
from costmodel.program import Program  # noqa: E402
from costmodel.schedule import LayerSpan  # noqa: E402
from token_reduction import get_method, list_methods, observe, reduce_tokens  # noqa: E402
from token_reduction.caches import cache_keyword, cache_of  # noqa: E402

A100 = "nvidia-a100-sxm4-80gb"
IMAGE = 99  # the placeholder's id
TEXT = 7
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 13, "num_attention_heads": 4, "image_size": 84, "patch_size": 14,
    "projection_dim": 16,
}  # fmt: skip
LANGUAGE = {
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 12,
    "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(kind, tmp_path, **settings):
    config = transformers.AutoConfig.for_model(
        kind, vision_config=VISION, text_config=LANGUAGE, image_token_index=IMAGE, **settings
    )
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    return model.eval(), load_model(tmp_path)


@pytest.fixture
def llava(tmp_path):
    return build("llava", tmp_path, image_seq_length=36)


@pytest.fixture
def llava_next(tmp_path):
    return build("llava_next", tmp_path, image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]])


class Counted:
    """FLOPs by stage of everything that ran inside the block."""

    def __init__(self, model) -> None:
        self.by_stage = {}
        self._counter = FlopCounterMode(display=False)
        self._reduction = 0
        self._starts = []
        inner = model.model
        self._modules = {
            "vision": inner.vision_tower,
            "projector": inner.multi_modal_projector,
            "prefill": inner.language_model,
            "head": model.lm_head,
        }

    def _total(self) -> int:
        return self._counter.get_total_flops()

    def _told(self, name: str, begins: bool) -> None:
        assert name == "reduction"
        if begins:
            self._starts.append(self._total())
            return
        start = self._starts.pop()
        if not self._starts:
            self._reduction += self._total() - start

    def __enter__(self):
        self._stack = []
        self._hooks = []
        for stage, module in self._modules.items():
            # Own work may run in hooks of the same module: what matters is what it adds in between.
            def before(*_):
                self._stack.append((self._total(), self._reduction))

            def after(*_, stage=stage):
                total, reduction = self._stack.pop()
                own = self._reduction - reduction
                spent = self._total() - total - own
                self.by_stage[stage] = self.by_stage.get(stage, 0) + spent

            self._hooks += [
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            ]
        self._kernel = sdpa_kernel(SDPBackend.MATH)
        self._observer = observe(self._told)
        self._no_grad = torch.no_grad()
        for part in (self._no_grad, self._kernel, self._counter, self._observer):
            part.__enter__()
        return self

    def __exit__(self, *error):
        for part in (self._observer, self._counter, self._kernel, self._no_grad):
            part.__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        self.by_stage["prefill"] += self.by_stage.pop("head", 0)
        self.by_stage["reduction"] = self._reduction
        assert sum(self.by_stage.values()) == self._total(), "work outside every stage"


def prompt(batch, visual):
    ids = [1, 2, 3] + [IMAGE] * visual + list(range(4, TEXT + 1))
    assert len(ids) == TEXT + visual
    return torch.tensor([ids] * batch)


def run(model, method, batch, visual, pixels, **inputs):
    """Prefill and one decode step; FLOPs of each by stage, and the record."""
    torch.manual_seed(1)
    ids = prompt(batch, visual)
    with reduce_tokens(model, method) as record:
        with Counted(model) as prefill:
            out = model(
                input_ids=ids, pixel_values=pixels, use_cache=True, logits_to_keep=1, **inputs
            )
        with Counted(model) as decode:
            model(
                input_ids=ids[:, -1:],
                **{cache_keyword(): cache_of(out)},
                use_cache=True,
                logits_to_keep=1,
            )
    return prefill.by_stage, decode.by_stage, record


def rope_flops(model, tokens) -> int:
    """What the counter adds where a version computes the rotary angles as a batched product."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        positions = torch.arange(tokens)[None]
        model.model.language_model.rotary_emb(torch.empty(1, tokens, 8), positions)
    return counter.get_total_flops()


SETTINGS = [
    ("prumerge", {"keep": 5}),
    ("prumerge", {"keep": 0.25}),
    ("divprune", {}),
    ("divprune", {"keep": 9}),
    ("divprune", {"keep": 9, "layer": 0}),
    ("divprune", {"keep": 9, "layer": 2}),
    ("fastv", {}),
    ("fastv", {"keep": 0.25, "layer": 1}),
    ("fastv", {"keep": 3, "layer": 0}),
    ("vtw", {"layer": 2}),
    ("fitprune", {}),
    ("fitprune", {"keep": 0.2}),
    ("tome", {"keep": 20}),
    ("evit", {}),
    ("evit", {"keep": 12}),
    ("crossget", {"keep": 20}),
    ("sequential", {"keep": 8}),
    ("spatial", {"keep": 12}),
    ("m3", {"keep": 9}),
]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("name", "asked"), SETTINGS)
def test_llava(llava, name, asked, batch) -> None:
    model, config = llava
    pixels = torch.randn(batch, 3, 84, 84)
    counted, decoded, record = run(model, get_method(name, **asked), batch, 36, pixels)
    cost = estimate(
        config, A100, method=name, text_tokens=TEXT, batch_size=batch, output_tokens=1, **asked
    )
    for stage in ("vision", "projector", "reduction", "prefill"):
        extra = 0
        if stage == "prefill":
            extra = rope_flops(model, record.sequence_lengths[0])
        assert cost.stages[stage].flops == counted.get(stage, 0) - extra, stage
    # The step's rotary angles, where they count, are those of one token.
    assert cost.stages["decode"].flops == decoded["prefill"] - rope_flops(model, 1)
    assert decoded["reduction"] == 0


def test_every_method_is_counted() -> None:
    named = {name for name, _ in SETTINGS} | {"prumerge+", "ats"}
    assert named == set(list_methods())


@pytest.mark.parametrize("name", [name for name in list_methods() if name != "ats"])
def test_keeping_everything_counts_as_the_model_alone(llava, name) -> None:
    model, config = llava
    pixels = torch.randn(1, 3, 84, 84)
    counted, _, _ = run(model, get_method(name, keep=1.0), 1, 36, pixels)
    cost = estimate(config, A100, method=name, keep=1.0, text_tokens=TEXT)
    assert counted["reduction"] == cost.stages["reduction"].flops == 0
    assert counted["vision"] == cost.stages["vision"].flops
    assert counted["prefill"] - rope_flops(model, TEXT + 36) == cost.stages["prefill"].flops


def test_adaptive_prumerge_costs_what_its_count_costs(llava) -> None:
    model, config = llava
    pixels = torch.randn(1, 3, 84, 84)
    counted, _, record = run(model, get_method("prumerge"), 1, 36, pixels)
    chosen = record.tokens_after[0] - 1
    cost = estimate(config, A100, method="prumerge", keep=chosen, text_tokens=TEXT)
    for stage in ("vision", "projector", "reduction"):
        assert counted[stage] == cost.stages[stage].flops


def test_prumerge_plus_costs_what_its_grid_adds(llava) -> None:
    model, config = llava
    pixels = torch.randn(1, 3, 84, 84)
    counted, _, record = run(model, get_method("prumerge+", keep=4), 1, 36, pixels)
    tokens = record.tokens_after[0]
    # The model expects the grid's mean overlap with what attention chose; here it is known.
    kept, c, d = tokens - 1, 32, 32
    assert counted["reduction"] == 2 * 37 * c + 2 * kept * 36 * c + 2 * 36 * d
    cost = estimate(config, A100, method="prumerge+", keep=4, text_tokens=TEXT)
    assert abs(cost.stages["projector"].flops / counted["projector"] - 1) < 0.25
    assert get_method_cost("prumerge+").adaptive


@pytest.mark.parametrize("keep", [20, 30, 37])
def test_ats_costs_what_its_lengths_cost(llava, keep) -> None:
    model, config = llava
    pixels = torch.randn(1, 3, 84, 84)
    counted, _, record = run(model, get_method("ats", keep=keep), 1, 36, pixels)
    lengths = record.vision_lengths
    assert len(lengths) == 14
    spans = tuple(
        LayerSpan(1, t, after, after, after, materialised=3 <= layer <= 11)
        for layer, (t, after) in enumerate(pairwise(lengths))
    )
    program = Program(config, parse_precision("fp32"), get_plan("fused"), attention="flash")
    ops = program.vision(1, spans)
    assert counted["vision"] == sum(op.flops * op.count for op in ops)
    assert counted["reduction"] == 0
    assert estimate(config, A100, method="ats").stages["reduction"].flops == 0


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("prumerge", {"keep": 5}),
        ("divprune", {"keep": 0.1}),
        ("fastv", {"keep": 0.25, "layer": 1}),
        ("vtw", {"layer": 1}),
        ("tome", {"keep": 20}),
        ("sequential", {"keep": 8}),
        ("m3", {"keep": 4}),
    ],
)
@pytest.mark.parametrize("size", [(168, 168), (100, 168)])
def test_tiled_images(llava_next, name, asked, size) -> None:
    model, config = llava_next
    given = config.visual_input(image_size=size)
    pixels = torch.randn(1, given.crops, 3, 84, 84)
    counted, decoded, record = run(
        model, get_method(name, **asked), 1, given.tokens, pixels,
        image_sizes=torch.tensor([list(size)]),
    )  # fmt: skip
    cost = estimate(
        config, A100, method=name, image_size=size, text_tokens=TEXT, output_tokens=1, **asked
    )
    for stage in ("vision", "projector", "reduction", "prefill"):
        extra = rope_flops(model, record.sequence_lengths[0]) if stage == "prefill" else 0
        assert cost.stages[stage].flops == counted.get(stage, 0) - extra, stage
    assert cost.stages["decode"].flops == decoded["prefill"] - rope_flops(model, 1)
