"""The cost model against `torch.utils.flop_counter`, with a method at work inside a model.

Tiny random models of two families run on the CPU under `reduce_tokens`, and what the counter sees is
split by stage: a method's own work by `observe`, the rest by module. Differences must be 0.

The counter sees matrix products, convolutions and attention. It does not see, and the cost model does
not count as FLOPs: sorts, top-k, softmax, norms, cosine normalisation, gathers, scatters, pooling and
minima (all of M3, of the two samplers, of VTW, and DivPrune's picks). Attention runs by its decomposed
(math) kernel here, since the counter has no entry for the CPU's fused one. Older transformers compute
the rotary angles as a batched product: that one is counted apart and left out, wherever it runs.
"""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from costmodel import estimate, load_model  # noqa: E402
from costmodel.methods import method_info  # noqa: E402
from costmodel.methods.pieces import SORT_KERNELS  # noqa: E402
from costmodel.plans import get_plan  # noqa: E402
from costmodel.precision import parse_precision  # noqa: E402
from costmodel.program import Program  # noqa: E402
from costmodel.schedule import LayerSpan  # noqa: E402
from profiling.counting.one_run import RotaryAngles  # noqa: E402
from token_reduction import get_method, list_methods, observe, reduce_tokens  # noqa: E402
from token_reduction.caches import cache_keyword, cache_of  # noqa: E402

A100 = "nvidia-a100-sxm4-80gb"
IMAGE, VIDEO = 99, 98  # the placeholders' ids
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


def build(kind, tmp_path, vision=VISION, language=LANGUAGE, **settings):
    config = transformers.AutoConfig.for_model(
        kind, vision_config=vision, text_config=language, image_token_index=IMAGE, **settings
    )
    config.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    return model.eval(), load_model(tmp_path)


@pytest.fixture
def llava(tmp_path):
    return build("llava", tmp_path, image_seq_length=36)


@pytest.fixture
def large(tmp_path):
    vision = {**VISION, "image_size": 168, "patch_size": 7, "num_hidden_layers": 3}
    language = {**LANGUAGE, "num_hidden_layers": 24}
    return build("llava", tmp_path, vision, language, image_seq_length=576)


@pytest.fixture
def llava_next(tmp_path):
    return build("llava_next", tmp_path, image_grid_pinpoints=[[84, 168], [168, 84], [168, 168]])


class Counted:
    """FLOPs by stage of everything that ran inside the block."""

    def __init__(self, model) -> None:
        self.by_stage = {}
        self._counter = FlopCounterMode(display=False)
        self._angles = RotaryAngles(self._counter)
        self._reduction = 0
        self._starts = []
        inner = model.model
        towers = ("vision_tower", "image_tower", "video_tower")
        self._modules = [
            *(("vision", getattr(inner, name)) for name in towers if hasattr(inner, name)),
            ("projector", inner.multi_modal_projector),
            ("prefill", inner.language_model),
            ("head", model.lm_head),
        ]
        self._model = inner

    def _total(self) -> int:
        return self._counter.get_total_flops() - self._angles.flops

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
        for stage, module in self._modules:
            # Own work may run in hooks of the same module: what matters is what it adds in between.
            def before(*_):
                self._stack.append((self._total(), self._reduction))

            def after(*_, stage=stage):
                total, reduction = self._stack.pop()
                spent = self._total() - total - (self._reduction - reduction)
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
        self._hooks += self._angles.watch(self._model)
        return self

    def __exit__(self, *error):
        for part in (self._observer, self._counter, self._kernel, self._no_grad):
            part.__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        self.by_stage["prefill"] += self.by_stage.pop("head", 0)
        self.by_stage["reduction"] = self._reduction
        assert sum(self.by_stage.values()) == self._total(), "work outside every stage"


def prompt(batch, visual, before=3, mark=IMAGE):
    text = list(range(1, TEXT + 1))
    ids = text[:before] + [mark] * visual + text[before:]
    assert len(ids) == TEXT + visual
    return torch.tensor([ids] * batch)


def run(model, method, batch, visual, pixels, before=3, mark=IMAGE, **inputs):
    """Prefill and one decode step; FLOPs of each by stage, and the record."""
    torch.manual_seed(1)
    ids = prompt(batch, visual, before, mark)
    if pixels is not None:
        inputs["pixel_values"] = pixels
    with reduce_tokens(model, method) as record:
        with Counted(model) as prefill:
            out = model(input_ids=ids, use_cache=True, logits_to_keep=1, **inputs)
        with Counted(model) as decode:
            model(
                input_ids=ids[:, -1:],
                **{cache_keyword(): cache_of(out)},
                use_cache=True,
                logits_to_keep=1,
            )
    return prefill.by_stage, decode.by_stage, record


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
    ("visionzip", {"keep": 20}),
    ("visionzip", {"keep": 0.1}),  # 4 tokens, none of them merged
    ("fastervlm", {}),
    ("fastervlm", {"keep": 9}),
    ("vispruner", {"keep": 21}),
    ("vispruner", {"keep": 0.07}),  # 3: down to 2 of 35, past the point of 8 even ones
    ("cdpruner", {"keep": 20}),
    ("cdpruner", {"keep": 2}),
    ("cdpruner", {"keep": 1}),
    ("hired", {}),
    ("hired", {"keep": 9}),
    ("pyramiddrop", {}),
    ("pyramiddrop", {"keep": 0.4}),  # 36, 14, 5, 2
    ("pyramiddrop", {"keep": 9}),
    ("dart", {"keep": 9}),
    ("dart", {"keep": 0.2, "layer": 1}),
    ("random", {"keep": 9}),
    ("random", {"keep": 0.3}),
    ("holov", {"keep": 20}),
    ("holov", {"keep": 0.1}),
    ("hiprune", {"keep": 20}),
    ("vscan", {"keep": 20}),  # 20 of 36 and 6 of them
    ("downsample", {"keep": 9}),
    ("downsample", {"keep": 0.5}),  # 18 of 36: 16
]
#: Methods for clips, on three frames of 9 to 37 tokens.
ON_CLIPS = [
    *(("evs", {}), ("evs", {"keep": 20}), ("vidcom2", {}), ("vidcom2", {"keep": 12})),
    *(("dycoke", {}), ("dycoke", {"keep": 0.5})),
    *(("dycoke(variant=both)", {}), ("dycoke(variant=both, park=0.4, at=5)", {"keep": 0.5})),
]
#: Those that weigh frames by the tower, on three frames of 9 tokens, each a scene.
WEIGHED = [
    *(("fastvid", {"keep": 0.5}), ("fastvid(threshold=-1)", {"keep": 0.6})),
    *(("holitom", {"keep": 0.5}), ("holitom(cut=3, deep=0.2)", {}), ("holitom(cut=0)", {})),
    ("holitom(cut=0)/fastv(keep=0.5)", {}),
]
#: Defaults that need the 576 patches of a real tower, and 17 language-model layers at least.
LARGE = [
    ("visionzip", {}),
    ("vispruner", {}),
    ("cdpruner", {}),
    ("dart", {}),
    ("sparsevlm", {}),
    ("sparsevlm", {"keep": 128}),
    ("sparsevlm", {"keep": 96}),
    ("sparsevlm", {"keep": 64}),
    ("holov", {}),
    ("v2drop", {}),
    ("v2drop", {"keep": 0.3}),
]


def lengths(name, config, visual, crops, projected, *, text=TEXT, batch=1, keep=None, layer=None):
    """Tokens entering each layer of the language model, as the cost model has them."""
    plan = get_method(name).plan(
        config, parse_precision("fp32"), visual, projected, crops, text, batch,
        config.vision.num_layers, keep=keep, layer=layer,
    )  # fmt: skip
    return [text + span.tokens for span in plan.llm_spans for _ in range(span.layers)]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("name", "asked"), SETTINGS)
def test_llava(llava, name, asked, batch) -> None:
    model, config = llava
    pixels = torch.randn(batch, 3, 84, 84)
    counted, decoded, record = run(model, get_method(name, **asked), batch, 36, pixels)
    cost = estimate(
        config, A100, method=name, text_tokens=TEXT, batch_size=batch, output_tokens=1, **asked
    )
    if name not in ("fitprune",):
        expected = lengths(name, config, 36, 1, 36, **asked)
        assert record.sequence_lengths[:-1] == expected
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    assert cost.stages["decode"].flops == decoded["prefill"]
    assert decoded["reduction"] == 0


@pytest.mark.parametrize(("name", "asked"), LARGE)
def test_large_llava(large, name, asked) -> None:
    model, config = large
    pixels = torch.randn(1, 3, 168, 168)
    method = get_method(name, **asked)
    # The cost model takes all text to stand behind the image.
    counted, decoded, record = run(model, method, 1, 576, pixels, before=0)
    cost = estimate(config, A100, method=name, text_tokens=TEXT, output_tokens=1, **asked)
    assert record.sequence_lengths[:-1] == lengths(name, config, 576, 1, 576, **asked)
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    assert cost.stages["decode"].flops == decoded["prefill"]


class Launches(TorchDispatchMode):
    """Counts operations that launch something, a sort as four kernels, while `on`."""

    QUIET = frozenset({
        "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty",
        "expand", "lift_fresh", "new_empty", "permute", "select", "slice", "split", "squeeze", "t",
        "transpose", "unbind", "unsqueeze", "view", "_local_scalar_dense",
    })  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.on, self.kernels = False, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition(".")[0]
        if self.on and name not in self.QUIET:
            self.kernels += SORT_KERNELS if name in ("sort", "topk") else 1
        return function(*args, **(kwargs or {}))

    def told(self, _name, begins) -> None:
        self.on = begins


@pytest.mark.parametrize(
    "name",
    [
        "visionzip",
        "fastervlm",
        "vispruner",
        "cdpruner",
        "hired",
        "pyramiddrop",
        "dart",
        "sparsevlm",
        "holov",
        "v2drop",
        "vscan(shallow=1)",
    ],
)
def test_kernels_are_about_those_that_run(large, name) -> None:
    model, config = large
    launches = Launches()
    with (
        torch.no_grad(), launches, observe(launches.told), reduce_tokens(model, get_method(name)),
    ):  # fmt: skip
        model(input_ids=prompt(1, 576, 0), pixel_values=torch.randn(1, 3, 168, 168))
    cost = estimate(config, A100, method=name, text_tokens=TEXT)
    assert cost.stages["reduction"].kernels == pytest.approx(launches.kernels, rel=0.2)


OPTIONS = [
    "prumerge(keep=5, neighbours=8)",
    "prumerge(keep=5, variant=paper)",
    "prumerge+(keep=5, variant=paper)",
    "divprune(keep=9, compute_dtype=float64)",
    "fastv(keep=0.25, layer=1, variant=paper)",
    "fitprune(scheme=[4,0,6,2])",
    "tome(r=2)",
    "tome(r=[3,1,2])",
    "tome(r=2, inflect=-1)",
    "tome(keep=20, proportional=false)",
    "evit(layers=[2,5])",
    "evit(fuse=false)",
    "crossget(r=2)",
    "spatial(grid=[3,4])",
    "spatial(keep=5, variant=strided)",
    "vispruner(keep=12, important=0.25)",
    "pyramiddrop(layers=[1,3])",
    "dart(keep=8, image_pivots=2, text_pivots=1)",
    "dart(keep=13, variant=embedding)",
    "cdpruner(keep=13, variant=split)",
    "sparsevlm(layers=[0,2], counts=[20,8])",
    "v2drop(layers=[1,3], shares=[0.5,0])",
    "v2drop(layers=[1,2], keep=7)",
    "holov(keep=9, chunks=5)",
    "hiprune(keep=9, shallow=2, alpha=0.8)",
    "vscan(keep=13, shallow=2, cut=3, deep=0.5)",
]


@pytest.mark.parametrize("line", OPTIONS)
def test_options_and_variants(llava, line) -> None:
    model, config = llava
    method = get_method(line)
    assert str(get_method(method.name)) != str(method)
    # The cost model takes all text to stand behind the image.
    counted, _, record = run(model, method, 1, 36, torch.randn(1, 3, 84, 84), before=0)
    cost = estimate(config, A100, method=method, text_tokens=TEXT)
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    plan = method.plan(
        config, parse_precision("fp32"), 36, 36, 1, TEXT, 1, config.vision.num_layers
    )
    entering = [TEXT + span.tokens for span in plan.llm_spans for _ in range(span.layers)]
    assert record.sequence_lengths[:-1] == entering


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "line",
    [
        "divprune(keep=20)/fastv(keep=9, layer=1)",
        "visionzip(keep=20)/pyramiddrop(layers=[1,3])",
        "tome(keep=20)/v2drop(layers=[1,2], keep=0.5)",
    ],
)
def test_two_methods(llava, line, batch) -> None:
    model, config = llava
    pixels = torch.randn(batch, 3, 84, 84)
    counted, decoded, record = run(model, get_method(line), batch, 36, pixels)
    cost = estimate(config, A100, method=line, text_tokens=TEXT, batch_size=batch, output_tokens=1)
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    assert cost.stages["decode"].flops == decoded["prefill"]
    spans = cost.visual_tokens_by_layer
    assert record.sequence_lengths[:-1] == [TEXT + n for layers, n in spans for _ in range(layers)]


def test_every_method_is_counted() -> None:
    rows = SETTINGS + LARGE + ON_CLIPS + WEIGHED
    named = {name for name, _ in rows if "(" not in name} | {"prumerge+", "ats"}
    # pixelprune is counted with the models of native resolution.
    assert named == set(list_methods()) - {"pixelprune"}


@pytest.mark.parametrize("name", [n for n in list_methods() if n not in ("ats", "pixelprune")])
def test_keeping_everything_counts_as_the_model_alone(llava, name) -> None:
    model, config = llava
    pixels = torch.randn(1, 3, 84, 84)
    counted, _, _ = run(model, get_method(name, keep=1.0), 1, 36, pixels)
    cost = estimate(config, A100, method=name, keep=1.0, text_tokens=TEXT)
    assert counted["reduction"] == cost.stages["reduction"].flops == 0
    assert counted["vision"] == cost.stages["vision"].flops
    assert counted["prefill"] == cost.stages["prefill"].flops


def test_adaptive_prumerge_costs_what_its_count_costs(llava) -> None:
    model, config = llava
    # In few random pictures a patch stands out; one in which none does keeps the merged token alone.
    pictures = (
        torch.randn(1, 3, 84, 84, generator=torch.Generator().manual_seed(seed))
        for seed in range(50)
    )
    runs = (run(model, get_method("prumerge"), 1, 36, pixels) for pixels in pictures)
    counted, chosen = next(
        (counted, record.tokens_after[0] - 1)
        for counted, _, record in runs
        if record.tokens_after[0] > 1
    )
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
    assert method_info("prumerge+").adaptive


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
        ("visionzip", {"keep": 20}),
        ("fastervlm", {}),
        ("vispruner", {"keep": 10}),
        ("cdpruner", {"keep": 10}),
        ("pyramiddrop", {}),
        ("dart", {"keep": 0.2}),
        ("holov", {"keep": 10}),
        ("hiprune", {"keep": 10}),
        ("vscan", {"keep": 10}),
        ("downsample", {"keep": 9}),
    ],
)
@pytest.mark.parametrize("size", [(168, 168), (100, 168)])
def test_tiled_images(llava_next, name, asked, size) -> None:
    model, config = llava_next
    given = config.visual_input(image_size=size)
    pixels = torch.randn(1, given.crops, 3, 84, 84)
    counted, decoded, _ = run(
        model, get_method(name, **asked), 1, given.tokens, pixels,
        image_sizes=torch.tensor([list(size)]),
    )  # fmt: skip
    cost = estimate(
        config, A100, method=name, image_size=size, text_tokens=TEXT, output_tokens=1, **asked
    )
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    assert cost.stages["decode"].flops == decoded["prefill"]


@pytest.mark.parametrize(("size", "off"), [((168, 168), 3), ((100, 168), 12)])
def test_hired_expects_what_the_tiles_keep(llava_next, size, off) -> None:
    model, config = llava_next
    given = config.visual_input(image_size=size)
    pixels = torch.randn(1, given.crops, 3, 84, 84)
    counted, _, record = run(
        model, get_method("hired", keep=0.5), 1, given.tokens, pixels,
        image_sizes=torch.tensor([list(size)]),
    )  # fmt: skip
    cost = estimate(config, A100, method="hired", keep=0.5, image_size=size, text_tokens=TEXT)
    for stage in ("vision", "projector", "reduction"):
        assert cost.stages[stage].flops == counted[stage]
    # Shares are truncated, and with padding it depends on the image what the model cuts off.
    (expected,) = set(
        lengths("hired", config, given.tokens, given.crops, given.projected_tokens, keep=0.5)
    )
    assert 0 <= expected - record.sequence_lengths[0] <= off


SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 84, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip
DEEP = {**LANGUAGE, "num_hidden_layers": 18}
#: family -> its towers, settings, and whether the class token is there to rank by.
FAMILIES = {
    "video_llava": (VISION, {"image_seq_length": 36, "video_seq_length": 111}),
    "llava_next_video": (VISION, {"image_grid_pinpoints": [[84, 168], [168, 84], [168, 168]]}),
    "llava_onevision": (SIGLIP, {"image_grid_pinpoints": [[84, 168], [168, 84], [168, 168]],
                                 "vision_feature_layer": -1,
                                 "vision_feature_select_strategy": "full"}),
}  # fmt: skip
BY_CLASS = [
    ("visionzip", {"keep": 20}),
    ("fastervlm", {"keep": 0.25}),
    ("vispruner", {"keep": 10}),
    ("cdpruner", {"keep": 5}),
    ("holov", {"keep": 10}),
    ("hiprune(shallow=4)", {"keep": 10}),
    ("vscan(shallow=4)", {"keep": 10}),
    ("downsample", {"keep": 16}),
]
IN_THE_LLM = [
    *(("pyramiddrop", {}), ("dart", {"keep": 7}), ("sparsevlm(counts=[66,30,17])", {})),
    ("v2drop(layers=[1,5], shares=[0.4,0])", {}),
]
INPUTS = [
    *(("video_llava", "image", *row) for row in [*BY_CLASS, ("hired", {"keep": 0.3}), *IN_THE_LLM]),
    *(("video_llava", "video", *row) for row in [*BY_CLASS, *IN_THE_LLM]),
    *(("llava_next_video", "image", *row) for row in [*BY_CLASS, *IN_THE_LLM]),
    *(("llava_next_video", "video", *row) for row in IN_THE_LLM),
    *(("llava_onevision", kind, *row) for kind in ("image", "video") for row in IN_THE_LLM),
    *((kind, "video", *row) for kind in FAMILIES for row in ON_CLIPS),
    *(("llava_onevision", "video", *row) for row in WEIGHED),
    *(("llava_onevision", "image", *row) for row in ON_CLIPS),
]


@pytest.mark.parametrize(("kind", "modality", "name", "asked"), INPUTS)
def test_other_families(tmp_path, kind, modality, name, asked) -> None:
    vision, settings = FAMILIES[kind]
    model, config = build(kind, tmp_path, vision, DEEP, video_token_index=VIDEO, **settings)
    if modality == "video":
        shape = {"frames": 3}
        given = config.visual_input(**shape, count="transformers")
        inputs = {"pixel_values_videos": torch.randn(1, 3, 3, 84, 84)}
        # Beyond the paper's count it is the one of `transformers`: class tokens go along.
        shape["visual_tokens"] = given.tokens
    else:
        shape = {"image_size": (100, 168)}
        given = config.visual_input(**shape)
        tiled = config.anyres is not None
        crops = (1, given.crops) if tiled else (1,)
        pixels = "pixel_values_images" if kind == "video_llava" else "pixel_values"
        inputs = {pixels: torch.randn(*crops, 3, 84, 84)}
        if tiled:
            inputs["image_sizes"] = torch.tensor([[100, 168]])
    counted, decoded, record = run(
        model, get_method(name, **asked), 1, given.tokens, None, before=0,
        mark=VIDEO if modality == "video" else IMAGE, **inputs,
    )  # fmt: skip
    cost = estimate(config, A100, method=name, text_tokens=TEXT, output_tokens=1, **shape, **asked)
    assert record.sequence_lengths[:-1] == lengths(
        name, config, given.tokens, given.crops, given.projected_tokens, **asked
    )
    for stage in ("vision", "projector", "reduction", "prefill"):
        assert cost.stages[stage].flops == counted.get(stage, 0), stage
    assert cost.stages["decode"].flops == decoded["prefill"]
