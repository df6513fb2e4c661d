"""Where pruning stops paying, and what fits a budget: answers that `estimate` confirms."""

from __future__ import annotations

import json

import pytest

from costmodel import estimate, frontier, sweep
from costmodel.memory import MEMORY_MARGIN_BYTES
from costmodel.questions.break_evens import break_even, largest_batch
from hardware_specs import get_hardware
from hardware_specs.errors import InvalidInputError
from vlm_roofline.cli import main

A100 = "nvidia-a100-sxm4-80gb"


class TestBreakEven:
    def test_budget_is_met_exactly(self) -> None:
        budget = 0.015
        answer = break_even("llava-1.5-7b", A100, latency_s=budget)
        most = answer.most_within_latency
        assert most is not None
        times = [
            estimate("llava-1.5-7b", A100, visual_tokens=n).totals.ttft_s for n in (most, most + 1)
        ]
        assert times[0] <= budget < times[1]

    def test_memory_bound_prefill_has_a_knee(self) -> None:
        """Reading 13.5 GB of weights takes as long for 1 visual token as for a hundred."""
        # On the ideal roofline: the law's stairs have knees of their own.
        ideal = {"text_tokens": 1, "calibration": "none"}
        answer = break_even("llava-1.5-7b", A100, **ideal)
        assert 50 < answer.knee_tokens < 400
        times = {
            n: estimate("llava-1.5-7b", A100, visual_tokens=n, **ideal).stages["prefill"].time_s
            for n in (1, answer.knee_tokens, answer.knee_tokens + 1)
        }
        assert 0.9 * times[answer.knee_tokens] <= times[1] < 0.9 * times[answer.knee_tokens + 1]
        assert answer.marginal_s[10] < answer.marginal_s[500] / 3

    def test_nothing_fits(self) -> None:
        answer = break_even("llava-1.5-7b", A100, latency_s=1e-6, memory_bytes=1e9)
        assert (answer.most_within_latency, answer.most_within_memory) == (-1, -1)
        assert largest_batch("llava-1.5-13b", "nvidia-v100-pcie-16gb") == 0

    def test_largest_batch_is_tight(self) -> None:
        batch = largest_batch("llava-1.5-7b", "nvidia-v100-sxm2-32gb")
        fits = [
            estimate("llava-1.5-7b", "nvidia-v100-sxm2-32gb", batch_size=b).memory.fits
            for b in (batch, batch + 1)
        ]
        assert fits == [True, False]

    @pytest.mark.parametrize("bad", [{"latency_s": 0}, {"memory_bytes": -1}, {"visual_tokens": 3},
                                     {"most": 0}, {"batch_size": [1, 2]}, {"memory_bytes": "3"},
                                     {"latency_s": float("nan")}, {"visual_tokens": None},
                                     {"method": "divprune", "keep": 64}])  # fmt: skip
    def test_refused(self, bad: dict) -> None:
        with pytest.raises(InvalidInputError):
            break_even("llava-1.5-7b", A100, **bad)

    def test_the_image_says_how_many_tokens_there_are(self) -> None:
        answer = break_even("llava-next-vicuna-7b", A100, image_size=(480, 640))
        assert answer.visual_tokens[-1] == 2340
        assert break_even("video-llava-7b", A100, frames=4).visual_tokens[-1] == 4 * 256

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"visual_tokens": 0, "text_tokens": 1, "precision": "w4a16kv4"},
            {"method": "m3", "keep": 1, "execution": "hf-eager"},
        ],
    )
    @pytest.mark.parametrize("memory_bytes", [5e9, 14.4e9, 80e9, 1e12])
    def test_no_larger_batch_fits(self, arguments: dict, memory_bytes: float) -> None:
        """Also beyond thousands of samples."""
        batch = largest_batch("llava-1.5-7b", A100, memory_bytes=memory_bytes, **arguments)
        peaks = [
            estimate("llava-1.5-7b", A100, batch_size=b, **arguments).memory.peak_memory_bytes
            for b in (max(batch, 1), batch + 1)
        ]
        assert [peak <= memory_bytes for peak in peaks] == [batch > 0, False]

    @pytest.mark.parametrize(("hardware", "batch"), [
        ("nvidia-l4", 26), ("nvidia-a10", 26), ("nvidia-t4", 5), ("nvidia-v100-sxm2-16gb", 7),
    ])  # fmt: skip
    def test_the_memory_that_the_driver_shows_is_what_there_is(
        self, hardware: str, batch: int
    ) -> None:
        """The L4 has 23034 MiB and the T4 15360, not 24 and 16 GiB (31 and 8 samples)."""
        assert largest_batch("llava-1.5-7b", hardware, memory_margin_bytes=0) == batch
        shown = get_hardware(hardware).memory_reported_bytes
        assert largest_batch("llava-1.5-7b", hardware, memory_bytes=shown) == batch

    def test_the_margin_is_kept_free(self) -> None:
        batch = largest_batch("llava-1.5-7b", "nvidia-l4")
        assert batch == largest_batch(
            "llava-1.5-7b", "nvidia-l4", memory_bytes=23034 * 2**20 - MEMORY_MARGIN_BYTES
        )
        fits = [estimate("llava-1.5-7b", "nvidia-l4", batch_size=batch + n) for n in (0, 1)]
        assert [cost.memory.fits for cost in fits] == [True, False]
        assert fits[0].assumptions["memory_margin_bytes"] == MEMORY_MARGIN_BYTES
        assert fits[0].assumptions["memory_capacity"].startswith("as the driver shows it")
        assert estimate("llava-1.5-7b", "nvidia-l4", batch_size=31).memory.fits is False
        answer = break_even("llava-1.5-7b", "nvidia-v100-pcie-16gb")
        free = break_even("llava-1.5-7b", "nvidia-v100-pcie-16gb", memory_margin_bytes=0)
        assert answer.most_within_memory <= free.most_within_memory

    @pytest.mark.parametrize(("margin", "batch"), [(0, 26), (2**30, 23), (3 * 10**9, 18)])
    def test_the_margin_is_one_argument_everywhere(self, margin: int, batch: int) -> None:
        given = {"memory_margin_bytes": margin}
        assert largest_batch("llava-1.5-7b", "nvidia-l4", **given) == batch
        table = sweep("llava-1.5-7b", "nvidia-l4", batch_size=[batch, batch + 1], **given)
        assert table.fits.tolist() == [True, False]
        assert table.memory_margin_bytes.tolist() == [margin] * 2
        cost = estimate("llava-1.5-7b", "nvidia-l4", batch_size=batch + 1, **given)
        assert cost.memory.fits is False
        assert cost.inputs["memory_margin_bytes"] == margin
        assert cost.assumptions["memory_margin_bytes"] == margin
        assert f"{margin / 1e9:.2f} GB for context and driver" in cost.warnings[-1]
        points = frontier(
            "llava-1.5-7b", "nvidia-l4", benchmark="pope", batch_size=batch + 1, **given
        ).points
        assert not any(p.within_budget for p in points if p.method == "none")

    def test_a_capacity_nobody_publishes_is_marked(self) -> None:
        cost = estimate("llava-1.5-7b", "google-tpu-v5e", precision="bf16")
        assert cost.memory.capacity_bytes == 15 * 2**30
        assert "no public figure" in cost.assumptions["memory_capacity"]

    @pytest.mark.parametrize("bad", [{"batch_size": 3}, {"precision": ["fp16", "w4a16"]},
                                     {"memory_margin_bytes": -1}, {"memory_margin_bytes": "1"},
                                     {"memory_margin_bytes": float("nan")},
                                     {"visual_tokens": [1, 2]}, {"memory_bytes": 0}])  # fmt: skip
    def test_no_batch_of(self, bad: dict) -> None:
        with pytest.raises(InvalidInputError):
            largest_batch("llava-1.5-7b", A100, **bad)


@pytest.mark.parametrize(
    ("line", "batch"),
    [
        ("cpu-amd-epyc-9654", None),  # the host sets its memory
        ("cpu-amd-epyc-9654 --memory-gb 16", 5),  # 1.87 GB beside the weights, 0.35 a sample
        ("nvidia-v100-pcie-16gb", largest_batch("llava-1.5-7b", "nvidia-v100-pcie-16gb")),
    ],
)
def test_the_command_answers_without_a_capacity(line: str, batch: int | None, capsys) -> None:
    precision = "bf16" if line.startswith("cpu") else "fp16"
    command = f"break-even llava-1.5-7b --precision {precision} -d {line}"
    assert main(f"{command} --json".split()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["largest_batch"] == batch
    assert (answer["most_within_memory"] is None) == (batch is None)
    assert main(command.split()) == 0
    assert "largest batch" in capsys.readouterr().out


def test_the_command_names_its_budgets_and_its_times(capsys) -> None:
    command = "break-even llava-1.5-7b -d nvidia-a100-sxm4-80gb"
    assert main(f"{command} --memory-gb 14.3 --latency-ms 20 --calibration none".split()) == 0
    tight = capsys.readouterr().out
    assert "within 14.300 GB: up to " in tight
    assert "own visual tokens: none" in tight
    assert "a lower bound" in tight
    assert main(command.split()) == 0
    roomy = capsys.readouterr().out
    assert "within 85.899 GB, less 1.074 GB for context and driver: all 576 visual tokens" in roomy
    assert "the shipped calibration of nvidia-a100-sxm4-80gb" in " ".join(roomy.split())


def test_the_margin_is_an_option(capsys) -> None:
    line = "llava-1.5-7b -d nvidia-l4 --json --memory-margin-bytes"
    assert main(f"break-even {line} 0".split()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["largest_batch"], answer["memory_margin_bytes"]) == (26, 0)
    assert main(f"estimate {line} 5e8 --batch-size 25".split()) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["inputs"]["memory_margin_bytes"] == 500_000_000
    assert main(f"sweep {line} 0,2e9 --batch-size 26".split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["fits"] for row in rows] == [True, False]
    for wrong in ("much", "-1", "1e400"):
        assert main(f"estimate {line}={wrong}".split()) == 2
        assert "\n" not in capsys.readouterr().err.strip()


def test_what_estimate_warns_of_reaches_every_question(tmp_path, capsys) -> None:
    """A bfloat16 checkpoint on a V100 is priced in fp16, and says so wherever it is asked about."""
    from costmodel.models import config_dict

    folder = tmp_path / "mine"
    folder.mkdir()
    text = json.dumps(config_dict("llava-1.5-7b") | {"dtype": "bfloat16"})
    (folder / "config.json").write_text(text, encoding="utf-8")
    said = "the checkpoint's dtype is bf16, which NVIDIA V100 SXM2 32 GB does not compute in"
    device = "nvidia-v100-sxm2-32gb"
    told = (
        break_even(folder, device).warnings,
        sweep(folder, device, visual_tokens=[1, 2], batch_size=[1, 8]).attrs["warnings"],
    )
    assert all(len(lines) == 1 and lines[0].startswith(said) for lines in told)
    assert "is taken as" in break_even("llava-1.5-7b", "v100").warnings[0]
    answer = frontier("llava-1.5-7b", "v100", benchmark="pope")
    assert answer.to_dict()["warnings"] == list(answer.warnings)
    assert "is taken as" in answer.warnings[0]
    for command in (f"break-even {folder}", f"sweep {folder}"):
        assert main(f"{command} -d {device}".split()) == 0
        assert said in capsys.readouterr().err
        assert main(f"{command} -d {device} --json".split()) == 0
        assert json.loads(capsys.readouterr().out)["warnings"][0].startswith(said)
    assert main(["frontier", "llava-1.5-7b", "-d", "v100", "--benchmark", "pope"]) == 0
    assert "is taken as" in capsys.readouterr().err
