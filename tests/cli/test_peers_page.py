"""docs/peers.md: the parts it names add up to what each tool was recorded to say, and ours are today's."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel import estimate

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "|" in line
]
A100 = "nvidia-a100-sxm4-80gb"
CARDS = ("nvidia-h100-sxm5-80gb", "nvidia-h200-sxm-141gb")
TOOLS = ("llm-analysis", "genz-llm", "calflops", "fvcore", "vlm-roofline")


def recorded(tool: str) -> float:
    row = next(row for row in ROWS if row[0].startswith(tool) and row[-1] != "datasheet peaks")
    return float(row[1].split()[0])


@pytest.mark.parametrize("tool", TOOLS)
def test_the_parts_add_up_to_what_each_tool_says(tool) -> None:
    start = next(k for k, row in enumerate(ROWS) if row[0] == "counted")
    place = ROWS[start].index(tool)
    total = 0.0
    for row in ROWS[start + 2 : start + 8]:
        cell = row[place]
        total += float(cell if cell[0].isdigit() else row[1] if cell == "yes" else 0)
    assert total == pytest.approx(recorded(tool), abs=3e-4)


@pytest.mark.parametrize(
    ("name", "calibration"), [("vlm-roofline, ideal", "none"), ("vlm-roofline", "auto")]
)
def test_our_own_rows_are_what_estimate_answers(name, calibration) -> None:
    cost = estimate("llama-2-7b", A100, text_tokens=616, output_tokens=64, calibration=calibration)
    row = next(row for row in ROWS if row[0] == name)
    assert row[1] == f"{cost.stages['prefill'].flops / 1e12:.4f} T"
    assert row[2] == f"{cost.totals.ttft_s * 1e3:.2f} ms"
    assert row[3] == f"{cost.totals.tpot_s * 1e3:.3f} ms"
    assert row[4] == f"{cost.memory.weight_bytes / 1e9:.3f} GB"
    assert row[5] == f"{cost.memory.kv_cache_bytes / 1e6:.1f} MB"


def intervals(*given, **more) -> tuple[str, str]:
    """The 90 % intervals of the first token and of one later, in ms with three digits."""
    first = estimate(*given, **more).totals
    decode = estimate(*given, **more, output_tokens=64).stages["decode"]
    ends = [
        (first.time_low_s, first.time_high_s),
        (decode.time_low_s / 64, decode.time_high_s / 64),
    ]
    return tuple(" to ".join(f"{end * 1e3:#.3g}" for end in pair) for pair in ends)


def test_the_intervals_are_those_of_today_and_hold_what_the_page_says() -> None:
    prose = " ".join(PAGE.split())
    llama = intervals("llama-2-7b", A100, text_tokens=616)
    assert (
        f"37.67 ms and 12.50 ms a token lie inside our 90 % intervals ({llama[0]} ms, {llama[1]} ms)"
        in prose
    )
    one, two = (
        intervals("qwen3-vl-8b", card, image_size=(1024, 1024), precision="bf16") for card in CARDS
    )
    assert f"({one[0]} ms on the H100, {two[0]} on the H200)" in prose
    assert f"({one[1]} ms, {two[1]} ms)" in prose
    inside = [0, 0]
    for card, ends in zip(CARDS, (one, two), strict=True):
        row = next(row for row in ROWS if row[0] == card)
        for cell in row[1:4]:
            for place, value in enumerate(cell.split(" + ")):
                low, high = map(float, ends[place].split(" to "))
                inside[place] += low <= float(value) <= high
    assert inside == [5, 6]  # "Of six times to the first token five", "All six times a token"


@pytest.mark.parametrize("card", CARDS)
def test_our_times_with_a_picture_are_those_of_today(card) -> None:
    cost = estimate(
        "qwen3-vl-8b", card, image_size=(1024, 1024), output_tokens=64, precision="bf16"
    )
    row = next(row for row in ROWS if row[0] == card)
    assert row[4] == f"{cost.totals.ttft_s * 1e3:.1f} + {cost.totals.tpot_s * 1e3:.2f}"
    assert row[5] == cost.inputs["calibration"]


@pytest.mark.parametrize(("place", "model"), [(1, "llava-1.5-7b"), (2, "qwen3-vl-8b")])
def test_flops_with_a_picture_are_ours_less_what_a_counter_leaves_out(place, model) -> None:
    size = {"llava-1.5-7b": (336, 336), "qwen3-vl-8b": (1024, 1024)}[model]
    start = next(k for k, row in enumerate(ROWS) if row[0] == "FLOPs")
    rows = {row[0].partition(" ")[0]: row[place] for row in ROWS[start + 2 : start + 9]}
    last = estimate(model, A100, image_size=size, calibration="none")
    assert rows["vlm-roofline"] == f"{last.totals.flops / 1e12:.4f} T"
    for tool, layers in (("calflops", "executed"), ("fvcore", "useful")):
        cost = estimate(
            model, A100, image_size=size, calibration="none", logits="all", vision_layers=layers
        )
        if tool == "calflops":
            assert rows["vlm-roofline,"] == f"{cost.totals.flops / 1e12:.4f} T"
        products = sum(op.flops for op in cost.ops if not op.op_class.startswith("attention"))
        assert float(rows[tool].split()[0]) == pytest.approx(products / 1e12, rel=2e-4)
