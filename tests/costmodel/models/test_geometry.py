"""Questions about images and clips that a model cannot answer."""

from __future__ import annotations

import pytest

from costmodel.models import load_model
from hardware_specs.errors import InvalidInputError

NEXT = "llava-next-vicuna-7b"


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (1.5, 2), (5,), "ab", 7, (True, 5), (10**7, 5)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(InvalidInputError, match="image"):
        load_model(NEXT).visual_input(image_size=size)


@pytest.mark.parametrize("frames", [0, -3, 1.5, True, "8", 10**9])
def test_frames_that_are_none_are_refused(frames):
    with pytest.raises(InvalidInputError, match="frames must be a whole number"):
        load_model("video-llava-7b").visual_input(frames=frames)


def test_questions_a_model_cannot_answer_are_refused():
    with pytest.raises(InvalidInputError, match="no vision tower"):
        load_model("llama-2-7b").visual_input(image_size=(10, 10))
    with pytest.raises(InvalidInputError, match="give one"):
        load_model("video-llava-7b").visual_input(image_size=(10, 10), frames=2)
    with pytest.raises(InvalidInputError, match="count must be"):
        load_model("llava-1.5-7b").visual_input(count="guess")
    assert load_model("llama-2-7b").visual_input() == (0, 0, 0)
