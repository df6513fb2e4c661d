"""CDPruner in a model: CLIP's joint space, which no LLaVA checkpoint holds, comes from a file.

A LLaVA's vision tower is CLIP's without the projection into the space it shares with text, and there is
no text tower. The file holds the projection, and the question's embedding as CLIP's text tower gives it:
one question for all images of a forward. Without a file both are random, which costs the same and picks
patches without meaning; the record says so. Own matrix products per crop, in FLOPs (n patches, w width of
the tower, g of the joint space, t embeddings, k kept):

    2 n w g              projection of the patches
    2 n g t              relevance
    2 n^2 w              cosines of the features
    n (k + 1) (k - 2)    rows picked before, subtracted at each pick
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from costmodel.methods.cdpruner import JOINT_WIDTH, QUESTIONS
from hardware_specs.errors import InvalidFileError, UnsupportedError
from token_reduction.cdpruner import cdpruner

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from token_reduction.apply.anatomy import Parts, Tower
    from token_reduction.apply.patching import Patches
    from token_reduction.apply.record import ReductionRecord
    from token_reduction.reduced import Reduced
    from token_reduction.registry import Method

AFTER_PROJECTOR = ("cdpruner",)


def question_function(
    parts: Parts, method: Method, record: ReductionRecord, patches: Patches
) -> Callable[[Tensor, Tower], Reduced]:
    """Return what reduces the patches of all crops, with its hook attached.

    Args:
        parts: the model.
        method: CDPruner, as asked for.
        record: told where no file was given.
        patches: takes the hook.

    Raises:
        UnsupportedError: the tower is no CLIP.
        InvalidFileError: the file does not hold what it must, or for another tower.
    """
    name, path, keep = method.name, method.options["embeddings"], method.keep
    parts.require_class_token(name)
    width = int(parts.towers[0].module.config.hidden_size)  # type: ignore[union-attr, arg-type]
    if path is None:
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(JOINT_WIDTH, width, generator=generator) * width**-0.5
        question = torch.randn(QUESTIONS, JOINT_WIDTH, generator=generator)
        record.notes.append(
            f"{name} runs with a random joint space and question: its published results need CLIP's, "
            "from a safetensors file given as embeddings=..."
        )
    else:
        projection, question = load_joint_space(Path(str(path)), width)
    seen: list[Tensor] = []

    def saw_features(_module: Any, args: Any, _kwargs: Any) -> None:
        seen[:] = [args[0]]

    patches.before(parts.projector, saw_features)

    def pruned(tokens: Tensor, tower: Tower) -> Reduced:
        if tokens.shape[1] != tower.patches:
            raise UnsupportedError(
                f"{name} works on a crop's {tower.patches} patches, but gets {tokens.shape[1]} "
                "tokens per crop here (this model pools them first)"
            )
        features = seen.pop()[:, -tower.patches :]
        norm: Any = tower.module.post_layernorm
        weight, texts = projection.to(tokens.device), question.to(tokens.device)
        embedded = norm(features).float() @ weight.T
        assert keep is not None  # noqa: S101  (it has a default)
        return cdpruner(tokens, embedded, texts, keep, features=features.float())

    return pruned


def load_joint_space(path: Path, width: int) -> tuple[Tensor, Tensor]:
    """Read CLIP's visual projection, [g, w], and a question's embeddings, [t, g], in float32.

    Args:
        path: a safetensors file with tensors named ...visual_projection.weight and ...text_embeds.
        width: width of the tower, w.

    Raises:
        InvalidFileError: no such file or tensors, or shapes that do not fit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            found = []
            for wanted in ("visual_projection.weight", "text_embeds"):
                fitting = [name for name in names if name.endswith(wanted)]
                if len(fitting) != 1:
                    raise InvalidFileError(
                        f"{path} holds {len(fitting)} tensors named ...{wanted}, and cdpruner needs "
                        f"one; it holds: {', '.join(names[:8])}"
                    )
                found.append(file.get_tensor(fitting[0]).float())
    except (OSError, SafetensorError) as error:
        raise InvalidFileError(f"{path} is no readable safetensors file: {error}") from error
    projection, question = found
    if question.ndim == 1:
        question = question.unsqueeze(0)
    if (
        projection.ndim != 2
        or projection.shape[1] != width
        or question.ndim != 2
        or (question.shape[1] != projection.shape[0])
    ):
        raise InvalidFileError(
            f"{path} holds a visual projection {tuple(projection.shape)} and text embeddings "
            f"{tuple(question.shape)}; this tower needs [g, {width}] and [t, g]"
        )
    return projection, question
