"""The plug-in for lmms-eval: a tiny checkpoint answers the questions of a stub task under a method."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("tokenizers")

import fake_lmms_eval as fake
from PIL import Image

from hardware_specs.errors import InvalidInputError, UnsupportedError
from token_reduction import get_method, reduce_tokens

NAME = "vlm_roofline"


@pytest.fixture(autouse=True)
def lmms_eval(monkeypatch):
    module = "vlm_roofline.lmms.models.vlm_roofline"
    with fake.installed():
        monkeypatch.delitem(sys.modules, module, raising=False)
        yield
        sys.modules.pop(module, None)


@pytest.fixture
def documents():
    noise = np.random.default_rng(0).integers(60, 255, (3, 30, 36, 3), dtype=np.uint8)
    return [
        {"question": "<image>\nwhat is this ?", "picture": Image.fromarray(each), "answer": ""}
        for each in noise
    ]


def test_answers_are_those_of_the_model_under_the_method(checkpoint, documents, tmp_path) -> None:
    from profiling.subject.checkpoint import inputs_of, load_checkpoint

    results, _ = fake.evaluate(
        NAME, f"pretrained={checkpoint},method=divprune,keep=9,dtype=fp32", documents, tmp_path,
        max_new_tokens=4, until=["\n\n"], temperature=0,
    )  # fmt: skip
    model, processor = load_checkpoint(str(checkpoint), "fp32", "cpu")
    for answer, each in zip(results["answers"], documents, strict=True):
        inputs = inputs_of(model, processor, [each["picture"]], "what is this ?")
        with reduce_tokens(model, get_method("divprune", keep=9)) as record:
            output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert record.visual_tokens == (576, 9)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert answer == processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        assert answer


def test_pictures_of_a_chat_template_and_stop_words(tiled_checkpoint, documents, tmp_path) -> None:
    called = f"pretrained={tiled_checkpoint},dtype=fp32"
    results, _ = fake.evaluate(NAME, called, documents[:1], tmp_path, max_new_tokens=3)
    (answer,) = results["answers"]
    first = answer.split()[0]
    results, _ = fake.evaluate(NAME, called, documents[:1], tmp_path, max_new_tokens=3, until=first)
    assert results["answers"] == [""]


def test_each_process_has_its_own_gpu(monkeypatch) -> None:
    model = fake.model_class(NAME)
    places = []
    monkeypatch.setattr(
        f"{model.__module__}.load_checkpoint",
        lambda *given: places.append(given[2]) or (None, None),
    )
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    found = model("some-model", method="fastv", keep=0.5, layer=3, device="cuda")
    assert places == ["cuda:1"]
    assert (found.rank, found._world_size, str(found.device)) == (5, 8, "cuda:1")
    assert (found.method.name, found.method.keep, found.method.layer) == ("fastv", 0.5, 3)


def test_what_cannot_be_asked_is_refused(monkeypatch) -> None:
    model = fake.model_class(NAME)
    monkeypatch.setattr(f"{model.__module__}.load_checkpoint", lambda *_: (None, None))
    with pytest.raises(InvalidInputError, match="one picture at a time"):
        model("some-model", batch_size="8")
    with pytest.raises(InvalidInputError, match="--keep says how a method works"):
        model("some-model", keep=64)
    for clips in ("holitom", "evs(keep=0.5)/fastv"):
        with pytest.raises(UnsupportedError, match="leaves pictures as they are"):
            model("some-model", method=clips)
    one = model("some-model", device="cpu")
    with pytest.raises(UnsupportedError, match="how likely an answer is"):
        one.loglikelihood([SimpleNamespace()])
    with pytest.raises(UnsupportedError, match="several rounds"):
        one.generate_until_multi_round([SimpleNamespace()])
    one.task_dict = {"clips": {"test": [{}]}}
    asked = SimpleNamespace(args=("what ?", {}, lambda _: ["clip.mp4"], 0, "clips", "test"))
    with pytest.raises(UnsupportedError, match="clips asks about videos"):
        one.generate_until([asked])
