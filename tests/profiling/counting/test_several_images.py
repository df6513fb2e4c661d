"""Several images in one prompt: the cost model against torch's counter, on a tiny model of every family.

| kind of input                          | siblings tried                                       | holds |
|----------------------------------------|------------------------------------------------------|-------|
| a number of images, their default size | 1, 2, 3 images, batch 1 and 2, five families         | all   |
| one size for all images                | 2 images of 100 x 168                                | all   |
| a size for each image                  | 100 x 168 beside 84 x 168 and 300 x 40               | all   |
| methods behind the projector           | divprune, a count and a share, 2, 3, 5 images        | all   |
| methods in the crops, in the layers    | sequential, m3, visionzip, vtw                       | all   |
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from tiny_families import FAMILIES, write_family

from costmodel import estimate
from costmodel.models import load_model
from profiling.counting.one_run import count_run
from profiling.measuring.profile import profile
from profiling.records.measurement import Configuration
from profiling.subject.execution import Execution
from profiling.subject.models import build_model
from token_reduction import get_method, reduce_tokens
from token_reduction.caches import cache_of

A100 = "nvidia-a100-sxm4-80gb"
STAGES = ("vision", "projector", "reduction", "prefill", "decode")
#: images, their sizes, batch.
PROMPTS: list[tuple[int, tuple[tuple[int, int], ...], int]] = [
    (1, (), 1),
    (2, (), 1),
    (3, (), 2),
    (2, ((100, 168),), 1),
    (3, ((100, 168), (84, 168), (300, 40)), 2),
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = write_family(request.param, tmp_path_factory.mktemp(request.param))
    return (
        request.param,
        source,
        build_model(source, dtype="fp32", device="cpu"),
        load_model(source),
    )


def _counted_and_priced(
    family: Any, *, images: int,
    sizes: tuple[tuple[int, int], ...] = (), batch: int = 1, method: str = "none", keep: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """FLOPs of a run by stage, and the estimate of the same prompt."""
    _, source, model, shape = family
    asked = Configuration(
        source, "fp32", method=method, keep=keep, text_tokens=7, batch_size=batch, output_tokens=1,
        device="cpu", images=images, image_sizes=sizes,
    )  # fmt: skip
    execution = Execution(model, shape, asked)
    with execution.ready():
        counts, _ = count_run(execution)
        tokens = execution.count_tokens()
    cost = estimate(
        shape, A100, visual_tokens=tokens.visual_in, images=images, text_tokens=7, batch_size=batch,
        image_size=sizes[0] if len(sizes) == 1 else sizes or None, output_tokens=1,
        method=None if method == "none" else method, keep=keep, precision="fp32",
        execution="hf-eager",
    )  # fmt: skip
    assert tokens.crops == cost.inputs["crops"]
    assert cost.inputs["images"] == images
    flops = {name: counts[name].flops or 0 for name in STAGES if name in counts}
    return flops, cost


@pytest.mark.parametrize(("images", "sizes", "batch"), PROMPTS)
def test_stages_are_counted_to_the_unit(family: Any, images: int, sizes: Any, batch: int) -> None:
    flops, cost = _counted_and_priced(family, images=images, sizes=sizes, batch=batch)
    assert flops == {name: cost.stages[name].flops for name in flops}


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize(
    ("method", "keep"),
    [("divprune", 5), ("divprune", 0.3), ("sequential", 8), ("m3", 9), ("visionzip", 20),
     ("vtw(layer=2)", None)],
)  # fmt: skip
def test_methods_are_counted_to_the_unit(family: Any, images: int, method: str, keep: Any) -> None:
    if method == "visionzip" and family[0] == "llava_onevision":
        pytest.skip("its tower has no class token")
    flops, cost = _counted_and_priced(family, images=images, method=method, keep=keep)
    # A method's work in hooks of a module falls into that module's stage.
    assert sum(flops.values()) == sum(cost.stages[name].flops for name in flops)


@pytest.mark.parametrize("images", [2, 3, 5])
def test_divprune_keeps_so_many_of_each_image(family: Any, images: int) -> None:
    """What the KV cache of a model holds is what the price says: 10, 15, 25 of 2, 3, 5 images."""
    _, source, model, shape = family
    execution = Execution(
        model, shape, Configuration(source, "fp32", text_tokens=7, device="cpu", method="divprune",
                                    keep=5, images=images),
    )  # fmt: skip
    with execution.ready():
        output = execution.first_logits()
        held = {layer.keys.shape[-2] - 7 for layer in cache_of(output).layers}
    cost = estimate(
        shape, A100, images=images, text_tokens=7, method="divprune", keep=5, precision="fp32"
    )
    per_token = 4 * 2 * 2 * 16 * 4  # layers, keys and values, heads, head dim, bytes
    assert held == {5 * images}
    assert cost.memory.kv_cache_bytes == (7 + 5 * images) * per_token


def test_a_processors_prompt_is_accepted(family: Any) -> None:
    """A prompt with so many placeholders as the cost model says goes through the model's own checks."""
    import torch

    name, source, model, shape = family
    execution = Execution(model, shape, Configuration(source, "fp32", device="cpu", images=2))
    assert execution.visual is not None
    count = shape.visual_input(images=2, count="transformers").tokens
    for wrong in (0, -2):
        ids = torch.tensor([[1, 2] + [execution.visual.placeholder_id] * (count + wrong) + [3]])
        if wrong:
            with pytest.raises(ValueError, match=r"[Ii]mage"):
                model(input_ids=ids, **execution.visual.arguments)
        else:
            with torch.no_grad():
                assert model(input_ids=ids, **execution.visual.arguments).logits.shape[1] == len(
                    ids[0]
                )
    with reduce_tokens(model, get_method("divprune", keep=5)), torch.no_grad():
        ids = torch.tensor([[1, 2] + [execution.visual.placeholder_id] * count + [3]])
        assert model(input_ids=ids, **execution.visual.arguments).logits.shape[1] == 13, name


def test_profile_runs_so_many_images(family: Any, quick: Any) -> None:
    _, source, _, shape = family
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a busy machine
        records = profile(
            source, device="cpu", dtype="fp32", images=[1, 2], image_size=(100, 168), text_tokens=7,
            options=quick,
        )  # fmt: skip
    assert [record.status for record in records] == ["ok", "ok"]
    crops = [shape.visual_input(images=n, image_size=(100, 168)).crops for n in (1, 2)]
    # They come in the random order of a campaign.
    assert sorted(record.tokens.crops for record in records) == sorted(crops)
    keys = {record.configuration.key for record in records}
    assert len(keys) == 2
