"""What a published score is, and what its columns may hold."""

from __future__ import annotations

from dataclasses import dataclass

#: How a table was read, best first.
EVIDENCE = {
    "T": "read in a text copy of the paper, tables included",
    "N2": "read in two public notes on the paper that agree",
    "N": "read in one public note on the paper",
    "M": "quoted from memory",
    "E": "evaluated by the reader of this, with lmms-eval",
}
#: How the cost model's setting of a row is known.
SETTINGS = ("stated", "inferred", "unknown")
#: Whose table a row stands in: the method's own authors', a rival's, a benchmark's; or the unreduced model.
OWNERS = ("own", "rival", "benchmark", "baseline")
#: What was trained before the score was taken.
TRAININGS = ("none", "lora", "full", "calibrated", "unknown")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: its key.
        metric: what a score is; higher is better for all of them.
        most: the upper end of its scale.
    """

    name: str
    metric: str
    most: float


@dataclass(frozen=True, slots=True)
class Source:
    """One document that scores were read in."""

    key: str
    what: str
    url: str
    read: str


@dataclass(frozen=True, slots=True)
class Score:
    """One published score.

    Attributes:
        paper: key of the paper, such as `prumerge`.
        arxiv: its arXiv number.
        table: the table's number.
        label: the row as the paper names it.
        model: a shipped model's name.
        method: a method's name; `none` for the unreduced model.
        keep: the setting of the cost model that is the same run, None for the method's default.
        layer: the language-model layer of methods that have one.
        setting: how `keep` and `layer` are known: `stated`, `inferred` or `unknown`.
        visual_tokens: visual tokens that reach the language model as printed, None where not given.
        flops_ratio: FLOPs against the unreduced model as printed, by the paper's own counting.
        training: `none`, `lora`, `full`, `calibrated` or `unknown`.
        benchmark: the benchmark's key.
        score: the score as printed.
        baseline: the score of the unreduced model in the same paper, None where there is none.
        evidence: a key of `EVIDENCE`.
        sources: keys of the sources it was read in.
        note: what a reader should know.
        owner: whose table it stands in, one of `OWNERS`.
    """

    paper: str
    arxiv: str
    table: str
    label: str
    model: str
    method: str
    keep: int | float | None
    layer: int | None
    setting: str
    visual_tokens: int | None
    flops_ratio: float | None
    training: str
    benchmark: str
    score: float
    baseline: float | None
    evidence: str
    sources: tuple[str, ...]
    note: str
    owner: str

    @property
    def retained(self) -> float | None:
        """The score over that of the same paper's unreduced model."""
        return None if not self.baseline else self.score / self.baseline
