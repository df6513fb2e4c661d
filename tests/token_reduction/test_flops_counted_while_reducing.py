"""The cost model against `torch.utils.flop_counter`, with a method at work inside a LLaVA.

Tiny random models run on the CPU under `reduce_tokens`, and what the counter sees is split by stage.
Differences must be 0. Neither side counts sorts, top-k, softmax, norms, cosine normalisation, gathers,
scatters, pooling and minima as FLOPs (all of M3, of the samplers, of VTW, and DivPrune's picks).
"""

from itertools import pairwise

import pytest
import torch
from counted_runs import (
    A100,
    LANGUAGE,
    ON_CLIPS,
    TEXT,
    VISION,
    WEIGHED,
    assert_equal,
    build,
    lengths,
    prompt,
    run,
)  # fmt: skip
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel import estimate
from costmodel.methods import method_info
from costmodel.methods.pieces import SORT_KERNELS
from costmodel.plans import get_plan
from costmodel.precision import parse_precision
from costmodel.program import Program
from costmodel.schedule import LayerSpan
from token_reduction import get_method, list_methods, observe, reduce_tokens


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return build("llava", tmp_path_factory.mktemp("llava"), image_seq_length=36)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    vision = {**VISION, "image_size": 168, "patch_size": 7, "num_hidden_layers": 3}
    language = {**LANGUAGE, "num_hidden_layers": 24}
    folder = tmp_path_factory.mktemp("large")
    return build("llava", folder, vision, language, image_seq_length=576)


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


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("name", "asked"), SETTINGS)
def test_llava(llava, name, asked, batch) -> None:
    model, config = llava
    pixels = torch.randn(batch, 3, 84, 84)
    counted, decoded, record = run(model, get_method(name, **asked), batch, 36, pixels)
    cost = estimate(
        config, A100, method=name, text_tokens=TEXT, batch_size=batch, output_tokens=1, **asked
    )
    if name != "fitprune":
        assert record.sequence_lengths[:-1] == lengths(name, config, 36, 1, 36, **asked)
    assert_equal(cost, counted, decoded)
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
    assert_equal(cost, counted, decoded)


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
    assert_equal(cost, counted)
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
    assert_equal(cost, counted, decoded)
    spans = cost.visual_tokens_by_layer
    assert record.sequence_lengths[:-1] == [TEXT + n for layers, n in spans for _ in range(layers)]


def test_every_method_is_counted() -> None:
    rows = SETTINGS + LARGE + ON_CLIPS + WEIGHED
    named = {name.partition("(")[0] for name, _ in rows} | {"prumerge+", "ats"}
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
