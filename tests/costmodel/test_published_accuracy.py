"""The published scores: what the file must say of each, and some read again."""

import pytest

from costmodel import list_models
from costmodel.accuracy import list_benchmarks, load_scores, load_sources, scores_frame
from costmodel.accuracy.collected import read_row
from costmodel.accuracy.published import EVIDENCE, SETTINGS, TRAININGS, _rows, get_benchmark
from costmodel.methods import list_methods
from hardware_specs.errors import InvalidFileError, UnknownNameError


def score(paper, table, model, label, bench):
    found = [
        row.score
        for row in load_scores()
        if (row.paper, row.table, row.model, row.label, row.benchmark)
        == (paper, table, model, label, bench)
    ]
    assert len(found) == 1, (paper, table, label, bench)
    return found[0]


def test_every_row_says_where_it_comes_from() -> None:
    for row in load_scores():
        assert row.evidence in EVIDENCE
        assert row.evidence != "M", "a number quoted from memory"
        assert row.setting in SETTINGS
        assert row.training in TRAININGS
        assert row.sources
        assert set(row.sources) <= set(load_sources())
        assert row.model in list_models()
        assert row.method in (*list_methods(), "none", "random")
        if row.setting == "inferred":
            assert row.note, row


def test_scores_are_within_their_scales() -> None:
    for row in load_scores():
        assert 0 <= row.score <= get_benchmark(row.benchmark).most
        assert row.flops_ratio is None or 0 < row.flops_ratio <= 1


def test_every_benchmark_of_a_paper_has_its_unreduced_model() -> None:
    for row in load_scores():
        assert row.baseline is not None
        assert row.retained == pytest.approx(row.score / row.baseline)
        if row.method == "none":
            assert row.retained == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("paper", "table", "model", "label", "bench", "value"),
    [
        ("prumerge", "1", "llava-1.5-7b", "+ PruMerge", "vqav2", 72.0),
        ("prumerge", "1", "llava-1.5-7b", "+ PruMerge+", "mmbench", 64.9),
        ("prumerge", "1", "llava-1.5-13b", "+ PruMerge", "mme", 1428.2),
        ("prumerge", "3", "video-llava-7b", "+ PruMerge", "activitynet-qa", 48.3),
        ("prumerge", "4", "llava-1.5-7b", "spatial 6x6", "pope", 67.9),
        ("prumerge", "5", "llava-1.5-7b", "selection without merging", "mme", 1221.6),
        ("prumerge", "6", "llava-1.5-7b", "without LoRA", "textvqa", 54.0),
        ("prumerge", "7", "llava-1.5-7b", "ToMe 25 %", "pope", 51.0),
        ("divprune", "1", "llava-1.5-7b", "DivPrune", "pope", 86.02),
        ("divprune", "1", "llava-1.5-7b", "FitPrune", "coco", 0.90),
        ("divprune", "1", "llava-1.5-13b", "VTW", "pope", 0.40),
        ("divprune", "1", "llava-next-vicuna-7b", "M3", "seedbench", 68.49),
        ("divprune", "2", "llava-next-video-7b", "DivPrune", "egoschema", 39.76),
        ("divprune", "3", "llava-1.5-7b", "layer 3", "mmbench", 23.97),
        ("divprune", "4", "llava-1.5-7b", "min-max", "sqa", 65.20),
    ],
)
def test_scores_read_again(paper, table, model, label, bench, value) -> None:
    assert score(paper, table, model, label, bench) == value


def test_inferred_settings_reproduce_the_printed_flops() -> None:
    # DivPrune's own script: MACs of a two-matrix FFN over its eleven data sets' text lengths.
    lengths = (15, 15, 23, 83, 25, 113, 15, 39, 21, 91, 57)
    shapes = {"llava-1.5-7b": (32, 4096, 11008), "llava-1.5-13b": (40, 5120, 13824)}
    checked = 0
    for row in load_scores():
        if row.paper != "divprune" or row.method not in ("fastv", "vtw") or row.benchmark != "gqa":
            continue
        if row.model not in shapes or row.setting != "inferred":
            continue
        layers, d, m = shapes[row.model]

        def macs(n, d=d, m=m):
            return 4 * n * d * d + 2 * n * n * d + 2 * n * d * m

        ratios = [
            (row.layer * macs(t + 576) + (layers - row.layer) * macs(t + (row.keep or 0)))
            / (layers * macs(t + 576))
            for t in lengths
        ]
        assert sum(ratios) / len(ratios) == pytest.approx(row.flops_ratio, abs=6e-5)
        checked += 1
    assert checked == 4


def test_benchmarks_by_model() -> None:
    assert "pope" in list_benchmarks("llava-1.5-7b")
    assert "pope" not in list_benchmarks("video-llava-7b")
    assert list_benchmarks("llama-2-7b") == ()
    with pytest.raises(UnknownNameError, match="unknown benchmark 'imagenet'"):
        get_benchmark("imagenet")


def test_a_broken_table_is_named() -> None:
    table = {
        "paper": "prumerge", "table": "1", "model": "llava-1.5-7b", "evidence": "T",
        "sources": ["divprune_text"], "columns": ["pope", "mme"],
    }  # fmt: skip
    row = {"label": "x", "method": "none", "setting": "stated", "training": "none", "scores": [1]}
    papers = {"prumerge": {"arxiv": "1"}}
    with pytest.raises(InvalidFileError, match="1 scores for 2 columns"):
        _rows(table, row, papers)
    with pytest.raises(InvalidFileError, match="evidence 'Z' is none of"):
        _rows({**table, "evidence": "Z"}, {**row, "scores": [1, 2]}, papers)
    with pytest.raises(InvalidFileError, match="benchmark 'x' is none of"):
        _rows({**table, "columns": ["x", "mme"]}, {**row, "scores": [1, 2]}, papers)


def test_whose_table_a_score_stands_in() -> None:
    owners = {(row.paper, row.method): row.owner for row in load_scores()}
    assert owners["divprune", "divprune"] == owners["prumerge", "prumerge+"] == "own"
    assert owners["divprune", "fastv"] == "rival"
    assert owners["hiprune", "hiprune"] == "own"
    assert owners["holov", "visionzip"] == "rival"
    assert all((row.owner == "baseline") == (row.method == "none") for row in load_scores())


def test_contradictions_are_kept() -> None:
    """PyramidDrop called 64 on GQA: its authors print 47.5, rivals 41.9."""
    found = {
        row.score
        for row in load_scores()
        if (row.method, row.visual_tokens, row.benchmark, row.model)
        == ("pyramiddrop", 64, "gqa", "llava-1.5-7b")
    }
    assert {47.5, 41.9} <= found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"owner": "nobody"}, "owner 'nobody' is none of own, rival"),
        ({"source": "hearsay"}, "no source 'hearsay'"),
        ({"score": "high"}, "could not convert"),
        ({"keep": "half"}, "invalid literal"),
    ],
)
def test_a_broken_row_is_named(changed, message) -> None:
    row = {
        "paper": "p", "arxiv": "1", "table": "1", "label": "x", "model": "llava-1.5-7b", "method": "none",
        "keep": "", "layer": "", "setting": "stated", "visual_tokens": "", "training": "none",
        "benchmark": "pope", "score": "1", "baseline": "1", "evidence": "T", "source": "dart_text",
        "owner": "own", "note": "",
    }  # fmt: skip
    assert read_row(row).score == 1
    with pytest.raises(InvalidFileError, match=message):
        read_row({**row, **changed})


def test_frame() -> None:
    frame = scores_frame()
    assert len(frame) == len(load_scores())
    assert {"paper", "score", "retained", "evidence"} <= set(frame.columns)
