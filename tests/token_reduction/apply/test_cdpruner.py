"""CDPruner in a model, by hand, with its joint space from a file and without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hardware_specs.errors import InvalidFileError
from token_reduction import get_method, reduce_tokens


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


def test_cdpruner(llava, cases, features, sequence, joint_space, tower_view, in_double, agree):
    case = cases["llava"]
    llava, (inputs,) = in_double(llava, [case.inputs])
    case = replace(case, inputs=inputs)
    tower = llava.model.vision_tower
    view = tower_view(tower, case.inputs["pixel_values"])
    x = view.features[0, 1:]
    from safetensors.torch import load_file

    clip = {name: value.double() for name, value in load_file(joint_space).items()}
    images = tower.post_layernorm(x).float().double() @ clip["visual_projection.weight"].T
    images, texts, unit = (
        v / v.norm(dim=1, keepdim=True)
        for v in (images, clip["text_embeds"], features(llava, case))
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
    record = agree(llava, case, method, embeddings)
    assert record.kept_indices[0].tolist() == kept
    assert not record.notes


def test_cdpruner_without_a_file_says_that_it_guesses(llava, cases, generated):
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
    nowhere = get_method("cdpruner", keep=8, embeddings="nowhere")
    with (
        pytest.raises(InvalidFileError, match="no such file"),
        reduce_tokens(models["llava"], nowhere),
    ):
        pass
    save_file({"visual_projection.weight": torch.ones(16, 32)}, path)
    with (
        pytest.raises(InvalidFileError, match="0 tensors named"),
        reduce_tokens(models["llava"], method),
    ):
        pass
