"""No host, user, path or process number in what is written; nothing fetched or opened by reading it."""

from __future__ import annotations

import getpass
import gzip
import json
import os
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
import torch
from tiny_models import LLAVA

from costmodel.models import hub
from hardware_specs.errors import InvalidInputError
from profiling import profile, read_measurements, reconcile
from profiling.measuring.kernel_pass import run_kernel_passes
from profiling.records.measurement import Configuration
from profiling.records.model_names import model_of, public_name
from profiling.tracing.kernels import read_trace
from vlm_roofline.cli import main


@pytest.fixture
def secret(tmp_path):
    """A model in a folder whose path tells of its user."""
    folder = tmp_path / "home" / "alice-secret" / "projects" / "llava-mine"
    folder.mkdir(parents=True)
    document = {**LLAVA, "_name_or_path": "/home/alice-secret/checkpoints"}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def measured(secret, tmp_path, quick):
    """A folder of records, an op profile and a trace of that model."""
    out = tmp_path / "out"
    profile(
        str(secret),
        device="cpu",
        dtype="fp32",
        visual_tokens=4,
        text_tokens=3,
        options=quick,
        out=out,
    )
    configuration = Configuration(str(secret), "fp32", visual_tokens=4, text_tokens=3, device="cpu")
    assert [path for _, path in run_kernel_passes([configuration], out, traces=True)] != [None]
    return out


def test_nothing_that_is_written_names_user_path_host_or_process(measured, secret):
    poison = {"alice-secret", str(secret), str(secret.parent), socket.gethostname(), "checkpoints"}
    if getpass.getuser() != "root":  # a word that occurs in torch's own names
        poison.add(getpass.getuser())
    traces = 0
    for path in measured.iterdir():
        data = path.read_bytes()
        if path.suffix == ".gz":
            traces += 1
            data = gzip.decompress(data)
            assert "host_name" not in json.loads(data)
            assert not [e for e in json.loads(data)["traceEvents"] if e.get("pid") == os.getpid()]
            assert read_trace(path)
        text = data.decode()
        quoted = {word for word in poison if f'"{word}"' in text or ("/" in word and word in text)}
        assert not quoted, (path.name, quoted)
        assert "alice" not in text + path.name
    assert traces == 1


def test_a_record_prices_itself_where_its_model_is_gone(measured, secret, monkeypatch):
    shutil.rmtree(secret)
    monkeypatch.setattr(
        hub, "fetch_config", lambda _: pytest.fail("reading a record fetched a config")
    )
    (record,) = read_measurements(measured)
    assert record.configuration.model == public_name(record.configuration.model)
    assert record.configuration.model.startswith("llava-mine-")
    assert model_of(record.configuration.model, record.model_config).text.hidden_size == 64
    # An assumed device prices it: what matters is that nothing was opened.
    record_ = json.loads(json.dumps(record.to_dict()))
    record_["configuration"]["device"] = "cuda"
    record_["environment"] |= {"device_name": "NVIDIA A100-SXM4-80GB", "device_memory_bytes": 85_094_825_984,
                               "sm_count": 108}  # fmt: skip
    path = measured.parent / "alone.json"
    path.write_text(json.dumps(record_))
    assert reconcile(path).summary["runs"] == 1


def test_a_shared_archive_names_nobody_and_says_what_it_reveals(measured, tmp_path, capsys):
    """Poison in every text of a record: none of it leaves, and what leaves is listed."""
    host, user = socket.gethostname(), getpass.getuser()
    (record,) = read_measurements(measured)
    document = record.to_dict()
    document["configuration"]["model"] = "/home/alice-secret/projects/llava-mine"
    document["model_config"] |= {
        "_name_or_path": "/home/alice-secret/x",
        "auto_map": {"AutoConfig": "/home/alice-secret/code.py"},
        "text_config": {
            **document["model_config"]["text_config"],
            "_name_or_path": "~/alice-secret",
        },
    }
    document["environment"] |= {
        "hostname": host, "device_uuid": "GPU-5ec2e7",
        "variables": {"PYTORCH_ALLOC_CONF": f"log:/home/{user}/a"},
    }  # fmt: skip
    document["why_missing"] = {"energy": f"{user}@{host}: C:\\Users\\alice-secret\\x is missing"}
    document["capabilities"] = {"power": f"no permission for {user} on {host}"}
    document["started_at"] = "2026-11-20T23:59:58+00:00"
    for old in measured.glob("*_r0.json"):
        old.unlink()
    (measured / "poisoned.json").write_text(json.dumps(document))
    archive = tmp_path / "for-others.zip"
    assert main(["measurements", str(measured), "--share", str(archive), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["profiles"]) == (1, 1)
    shutil.rmtree(measured)
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == ["records.jsonl", "pass-0_ops.json"]
        assert {each.date_time for each in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        text = "".join(packed.read(name).decode() for name in packed.namelist())
        packed.extractall(measured)
    poison = ("alice", "secret", "llava-mine", "GPU-5ec2e7", "/home", "23:59", "projects", "Users")
    assert not [word for word in (*poison, host, f"{user}@", f"for {user}") if word in text]
    reveals = json.dumps(told["reveals"])
    for value in read_measurements(measured)[0].environment.values():
        for item in value.values() if isinstance(value, dict) else [value]:
            assert item is None or json.dumps(str(item))[1:-1] in reveals, item
    assert told["reveals"]["days"][0] == "2026-11-20"
    (again,) = read_measurements(measured)
    assert again.stages == record.stages
    assert model_of(again.configuration.model, again.model_config).text.hidden_size == 64


def test_a_share_is_refused_where_there_is_nothing(tmp_path, capsys):
    assert main(["measurements", str(tmp_path), "--share", str(tmp_path / "x.zip")]) == 2
    assert "no measurements" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["evil/evil", "/etc/passwd", "../../x", "https://example.org/x"])
def test_a_record_that_names_something_else_is_refused_without_a_look(name, monkeypatch):
    monkeypatch.setattr(
        hub, "fetch_config", lambda _: pytest.fail("reading a record fetched a config")
    )
    monkeypatch.setattr(
        Path, "read_text", lambda *_, **__: pytest.fail("reading a record opened a file")
    )
    with pytest.raises(InvalidInputError, match="carries no config"):
        model_of(name, None)


def test_the_same_model_in_two_places_has_one_name(secret, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "llava-mine"
    shutil.copytree(secret, elsewhere)
    assert public_name(str(secret)) == public_name(str(elsewhere / "config.json"))
    one, two = (Configuration(str(path), "fp32", device="cpu").key for path in (secret, elsewhere))
    assert one == two
    assert public_name(f"{secret}@layers=1").endswith("@layers=1")


def test_no_code_of_a_model_is_run(tmp_path, monkeypatch):
    """`auto_map` asks for code beside the weights: refused, without a question on stdin."""
    from hardware_specs.errors import VlmRooflineError
    from profiling import build_model

    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    document = {"model_type": "unheard-of", "auto_map": {"AutoConfig": "evil.C"}}
    (tmp_path / "config.json").write_text(json.dumps(document))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(VlmRooflineError):
        build_model(str(tmp_path), weights="real", device="cpu", dtype="fp32")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "weights", [b"", b"\x00" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"\xff" * 64]
)
def test_broken_weights_are_one_error(weights, tmp_path):
    from hardware_specs.errors import VlmRooflineError
    from profiling import build_model

    (tmp_path / "config.json").write_text(json.dumps(LLAVA))
    (tmp_path / "model.safetensors").write_bytes(weights)
    with torch.no_grad(), pytest.raises(VlmRooflineError):
        build_model(str(tmp_path), weights="real", device="cpu", dtype="fp32")
