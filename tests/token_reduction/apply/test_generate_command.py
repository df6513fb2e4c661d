"""`vlm-roofline generate`, end to end on checkpoints saved here: model, processor, picture."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL")
tokenizers = pytest.importorskip("tokenizers")

from PIL import Image  # noqa: E402

from vlm_roofline.cli import main  # noqa: E402


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "seen.png"
    noise = np.random.default_rng(0).integers(60, 255, (30, 36, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((360, 300)).save(path)
    return path


def run(capsys, *arguments):
    code = main(["generate", *map(str, arguments), "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def ask(capsys, folder, picture, *arguments):
    return run(
        capsys, folder, "--image", picture, "--prompt", "what is this ?",
        "--max-new-tokens", 4, *arguments,
    )  # fmt: skip


def test_an_answer_with_its_tokens_times_and_overlay(checkpoint, picture, capsys, tmp_path):
    overlay = tmp_path / "out.png"
    code, out, _ = ask(
        capsys, checkpoint, picture, "--method", "divprune", "--keep", "0.1", "--save-overlay",
        overlay,
    )  # fmt: skip
    assert code == 0
    assert "divprune: 58 of 576 visual tokens left (10.1 %)" in out
    for stage in ("vision", "projector", "reduction", "prefill", "decode (3 steps)", "total"):
        assert stage in out
    assert "not warmed up" in out
    with Image.open(overlay) as drawn:
        assert drawn.size == (640 + 2 * 16, 68 + 533 + 3 * 22 + 16)


@pytest.mark.parametrize(
    ("name", "left", "arguments"),
    [
        ("visionzip", 64, ()), ("fastervlm", 29, ()), ("vispruner", 64, ()), ("cdpruner", 64, ()),
        ("hired", 115, ()), ("pyramiddrop", 72, ()), ("dart", 134, ("--option", "text_pivots=1")),
        ("sparsevlm", 113, ("--option", "layers=0,1,2")),
    ],
)  # fmt: skip
def test_every_newer_method_answers(name, left, arguments, checkpoint, picture, capsys, tmp_path):
    overlay = tmp_path / "out.png"
    code, out, err = ask(
        capsys, checkpoint, picture, "--method", name, *arguments, "--save-overlay", overlay
    )
    assert code == 0, err
    assert f"{name}: {left} of 576 visual tokens left" in out
    assert ("random joint space" in out + err) == (name == "cdpruner")
    assert overlay.stat().st_size > 0


def test_the_same_as_json(checkpoint, picture, capsys):
    code, out, _ = ask(capsys, checkpoint, picture, "--method", "fastv", "--layer", "1", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["schema_version"] == 1
    assert document["visual_tokens_before"] == 576
    assert document["visual_tokens_after"] == 288
    assert document["reduction"]["sequence_lengths"] == [
        document["prompt_tokens"], *([document["prompt_tokens"] - 288] * 4),
    ]  # fmt: skip
    times = document["times_s"]
    assert all(
        times[stage] > 0 for stage in ("vision", "projector", "reduction", "prefill", "decode")
    )
    # The reduction sits inside the prefill; the parts lie inside the whole.
    assert (
        times["vision"] + times["projector"] + times["prefill"] + times["decode"] < times["total"]
    )
    assert times["reduction"] < times["prefill"]
    assert times["decode_per_token"] == pytest.approx(times["decode"] / 3)


def test_without_a_method_nothing_is_reduced(checkpoint, picture, capsys):
    code, out, _ = ask(capsys, checkpoint, picture, "--json", "--warm-up")
    document = json.loads(out)
    assert code == 0
    assert document["reduction"] is None
    assert document["times_s"]["reduction"] is None
    assert document["warmed_up"] is True
    kept_all = json.loads(
        ask(capsys, checkpoint, picture, "--method", "divprune", "--keep", "576", "--json")[1]
    )
    assert kept_all["answer"] == document["answer"]


def test_sampling_is_seeded(checkpoint, picture, capsys):
    settings = ("--temperature", "3", "--json", "--method", "vtw", "--layer", "2")
    first, second, other = (
        json.loads(ask(capsys, checkpoint, picture, *settings, "--seed", seed)[1])["answer"]
        for seed in (1, 1, 2)
    )
    assert first == second != other


def test_a_tiled_model_with_a_chat_template(tiled_checkpoint, picture, capsys, tmp_path):
    overlay = tmp_path / "tiles.jpg"
    code, out, _ = ask(
        capsys, tiled_checkpoint, picture, "--method", "prumerge", "--keep", "16",
        "--option", "neighbours=8", "--save-overlay", overlay,
    )  # fmt: skip
    assert code == 0
    assert "85 of" in out  # five crops of 16 + 1
    with Image.open(overlay) as drawn:
        assert drawn.size[0] > 1000


def test_a_prompt_that_places_the_image_itself(checkpoint, picture, capsys):
    code, out, _ = run(
        capsys, checkpoint, "--image", picture, "--prompt", "this is <image> ?", "--json",
        "--max-new-tokens", 1,
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["prompt_tokens"] == 576 + 3


def test_random_cross_tokens_are_said(checkpoint, picture, capsys):
    code, _, err = ask(capsys, checkpoint, picture, "--method", "crossget")
    assert code == 0
    assert "warning: crossget runs with random cross tokens" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep", "3"), "give --method"),
        (("--method", "nosuch"), "unknown method 'nosuch'"),
        (("--method", "divprune", "--keep", "much"), "neither a count such as 64"),
        (("--method", "divprune", "--option", "r"), "not NAME=VALUE"),
        (("--method", "divprune", "--option", "r=3"), "unknown option of divprune 'r'"),
        (("--method", "vtw", "--layer", "40"), "layers 0 to 3"),
        (("--temperature", "-1"), "must be 0 or more"),
        (("--seed", str(10**20)), "seed must be a whole number from 0"),
        (("--save-overlay", "x.png"), "give --method"),
        (
            ("--method", "divprune", "--save-overlay", "x.tx"),
            "must end in .png, .jpg, .jpeg or .webp",
        ),
        (("--dtype", "fp7"), "unknown precision"),
        (("--attention", "sdap"), "unknown attention 'sdap'; did you mean sdpa? There is: eager, "),
        (("--method", "divprune", "--save-overlay", "/nonexistent/x.png"), "cannot write"),
    ],
)
def test_bad_requests_end_in_one_line(arguments, message, checkpoint, picture, capsys):
    code, _, err = ask(capsys, checkpoint, picture, *arguments)
    assert code == 2
    assert message in err
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err


def test_bad_files_end_in_one_line(checkpoint, picture, capsys, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for image, reason in (
        (broken, "no picture"), (tmp_path / "absent.png", "no such file"), (tmp_path, "a folder"),
    ):  # fmt: skip
        code, _, err = ask(capsys, checkpoint, image)
        assert code == 2
        assert reason in err
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((checkpoint / name).read_bytes())
    code, _, err = ask(capsys, bare, picture)
    assert code == 2
    assert "no processor" in err
    (bare / "model.safetensors").unlink()
    code, _, err = ask(capsys, bare, picture)
    assert code == 2
    assert "Traceback" not in err


def test_a_pipe_or_torn_weights_in_a_model_folder_are_refused(
    checkpoint, picture, capsys, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    os.mkfifo(folder / "added_tokens.json")
    code, _, err = ask(capsys, folder, picture)
    assert code == 2
    assert "added_tokens.json: not a regular file" in err
    (folder / "added_tokens.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, _, err = ask(capsys, folder, picture)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("error: ")


def test_weights_that_could_run_code_are_not_loaded(checkpoint, picture, capsys, tmp_path):
    """A pickle in place of safetensors is refused, and so is a config with code of its own."""
    folder = tmp_path / "pickle"
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    code, _, err = ask(capsys, folder, picture)
    assert code == 2
    assert "Traceback" not in err
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "nosuch", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    code, _, err = ask(capsys, folder, picture)
    assert code == 2
    assert "code of its own" in err
