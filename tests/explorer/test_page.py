"""The explorer's page: one file, nothing fetched, everything escaped, every model of one's own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import zlib
from importlib.resources import files

import pytest

from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli import main
from vlm_roofline.explorer import Axes, explorer_html, page

TINY = Axes(
    precision=("fp16",), method=("fastv",), keep=(0.5,), batch_size=(1,), text_tokens=(40,),
    output_tokens=(8,), image_size=(),
)  # fmt: skip


def held(text: str, identifier: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{identifier}">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return found[1]


def unpacked(text: str, number: int) -> dict:
    return json.loads(zlib.decompress(base64.b64decode(held(text, f"grid-{number}"))))


def test_only_its_own_script_may_run_and_nothing_is_fetched() -> None:
    text = explorer_html(["llava-1.5-7b"], ["nvidia-l40s"], TINY)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    assert "connect-src" not in policy[1]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"(src|href)=[\"']?(https?:|//)|@import|url\(", text)
    assert "innerHTML" not in script
    assert "eval(" not in script


def test_a_model_and_a_device_of_ones_own(tmp_path, capsys) -> None:
    config = json.loads(
        files("costmodel.models").joinpath("configs/llava-1.5-7b.json").read_text("utf-8")
    )
    folder = tmp_path / "<b>my & model</b>"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    out = tmp_path / "x.html"
    options = ["--method", "fastv", "--keep", "50%", "--output-tokens", "8", "--precision", "auto"]
    code = main(
        [
            "explore",
            str(folder / "config.json"),
            "-d",
            "l40s",
            "--out",
            str(out),
            *options,
            "--json",
        ]
    )
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["out"] == str(out)
    assert told["bytes"] == out.stat().st_size < page.MOST_BYTES
    text = out.read_text("utf-8")
    assert "<b>my" not in text
    command = shlex.split(unpacked(text, 0)["command"])
    # A page that is handed on names the model, and no path but in the command that was typed.
    assert "/" not in unpacked(text, 0)["model"]
    assert command[2:] == [str(folder / "config.json"), "-d", "l40s"]
    assert unpacked(text, 0)["axes"]["setting"] == [[None, None], ["fastv", "0.5"]]


def test_what_holds_everywhere_is_in_the_commands(tmp_path) -> None:
    out = tmp_path / "x.html"
    options = "--execution hf-eager --host-us 5 --method none --output-tokens 8 --text-tokens 40"
    assert main(["explore", "llava-1.5-7b", "-d", "a100", "--out", str(out), *options.split()]) == 0
    text = out.read_text("utf-8")
    assert json.loads(held(text, "index"))["options"] == ["--execution hf-eager", "--host-us 5"]


def test_a_page_too_large_is_refused_with_what_makes_it_so(monkeypatch) -> None:
    monkeypatch.setattr(page, "MOST_BYTES", 20_000)
    with pytest.raises(InvalidInputError, match=r"llava-1.5-7b on nvidia-l40s .* fewer models"):
        explorer_html(["llava-1.5-7b"], ["nvidia-l40s"], TINY)
    with pytest.raises(InvalidInputError, match="at least one model"):
        explorer_html([], ["nvidia-l40s"], TINY)


def test_a_pair_that_is_there_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nvidia-l40s is there twice"):
        explorer_html(["llava-1.5-7b"], ["nvidia-l40s", "l40s"], TINY)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--out", "x.txt"], "must end in .html"),
        (["--method", "fastvv"], "fastv"),
        (["--batch-size", "many"], "--batch-size"),
        (["--keep", "much"], "neither a count"),
    ],
)
def test_bad_input_is_one_line(typed, told, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "llava-1.5-7b", "-d", "a100", "--output-tokens", "8", *typed]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
