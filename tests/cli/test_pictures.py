"""`--images` and `--image` on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from costmodel import estimate
from vlm_roofline.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Image = pytest.importorskip("PIL.Image")

A100 = "nvidia-a100-sxm4-80gb"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, size in enumerate(((640, 480), (336, 336))):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str]]:
    """Run a command and return its document and what it said beside."""

    def ran(*arguments: object) -> tuple[Any, str]:
        assert main([*map(str, arguments), "--json"]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return ran


def test_one_picture_says_what_it_makes(run: Any, pictures: Path) -> None:
    document, said = run(
        "estimate", "llava-next-vicuna-7b", "-d", A100, "--image", pictures / "0.png"
    )
    inputs = document["inputs"]
    assert (inputs["visual_tokens"], inputs["crops"], inputs["images"]) == (2340, 5, 1)
    assert "0.png: 480x640 pixels, 2340 visual tokens, 5 crops on llava-next-vicuna-7b" in said


def test_a_folder_is_several_images(run: Any, pictures: Path) -> None:
    for given in (
        ["--image", pictures],
        ["--image", pictures / "0.png", "--image", pictures / "1.png"],
    ):
        document, said = run("estimate", "llava-onevision-7b", "-d", A100, *given)
        inputs = document["inputs"]
        assert (inputs["visual_tokens"], inputs["crops"], inputs["images"]) == (1460, 2, 2)
        assert "2 pictures: 1460 visual tokens, 2 crops" in said


def test_sweep_takes_pictures_and_numbers_of_images(run: Any, pictures: Path) -> None:
    document, _ = run("sweep", "llava-1.5-7b,llava-next-vicuna-7b", "-d", A100, "--image", pictures)
    assert [(row["images"], row["crops"]) for row in document["rows"]] == [(2, 2), (2, 8)]
    document, _ = run("sweep", "llava-onevision-7b", "-d", A100, "--images", "1:3")
    assert [row["crops"] for row in document["rows"]] == [10, 2, 3]


def test_sizes_one_for_each(run: Any) -> None:
    document, _ = run(
        "estimate", "llava-next-vicuna-7b", "-d", A100, "--image-size", "480x640+336x336"
    )
    assert document["inputs"]["crops"] == 8


@pytest.mark.parametrize("more", [["--images", "2"], ["--image-size", "4x4"], ["--frames", "2"]])
def test_pictures_say_it_all(pictures: Path, more: list[str]) -> None:
    arguments = ["estimate", "llava-onevision-7b", "-d", A100, "--image", str(pictures), *more]
    assert main(arguments) == 2


@pytest.mark.parametrize("command", ["estimate", "sweep", "compare --method fastv --keep 0.5"])
def test_a_clip_and_its_budget_on_every_command(command: str, capsys) -> None:
    """Eight frames, two a second: four pairs at 40 + 4 x 8 text tokens (`<0.2 seconds>`, delimiters)."""
    name, *rest = command.split()
    asked = [
        "--fps",
        "2",
        "--seconds",
        "4",
        "--image-size",
        "720p",
        "--max-pixels",
        "1003520",
        "--json",
    ]
    assert main([name, "qwen3-vl-8b", "-d", A100, *rest, *asked]) == 0
    document = json.loads(capsys.readouterr().out)
    given = document["rows"][0] if name == "sweep" else document["inputs"]
    assert (given["frames"], given["max_pixels"], given["text_tokens"]) == (8, 1003520, 72)
    cost = estimate("qwen3-vl-8b", A100, frames=8, image_size=(720, 1280), max_pixels=1003520)
    assert given["visual_tokens"] == cost.inputs["visual_tokens"]


def test_a_clip_in_break_even(capsys) -> None:
    asked = ["--fps", "1", "--seconds", "4", "--image-size", "480p", "--json"]
    assert main(["break-even", "qwen2.5-vl-7b", "-d", A100, *asked]) == 0
    most = json.loads(capsys.readouterr().out)["visual_tokens"][1]
    asked = {"frames": 4, "image_size": "480p"}
    assert most == estimate("qwen2.5-vl-7b", A100, **asked).inputs["visual_tokens"]
