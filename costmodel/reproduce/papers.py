"""The FLOPs tables of six papers: the convention of that name, their rows in `data`, and remarks."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.conventions.divprune import TEXT_LENGTHS


@dataclass(frozen=True, slots=True)
class Paper:
    """A paper's table of counts.

    Attributes:
        name: its convention's name, and with underscores its data file's.
        title: what it is.
        notes: remarks for the reader.
        text_lengths: the prompts that its ratios are the mean over; None is the convention's own.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    text_lengths: tuple[int | None, ...] = (None,)


PAPERS = {
    paper.name: paper
    for paper in (
        Paper(
            "divprune",
            "DivPrune, tflops.py: MACs of two FFN matrices, eleven prompt lengths",
            (
                "Percentages are the mean of eleven ratios; the ratio of the two means is 15.87 %.",
                "Rows whose image or text tokens had to be solved are shown, not gated.",
            ),
            TEXT_LENGTHS,
        ),
        Paper(
            "fastv",
            "FastV, Tables 1 and 6: MACs of two FFN matrices, mean of a layer",
            (
                "n = 36 + 576 tokens before layer K, 36 + (1-R) x 576 behind it, unrounded.",
                "The 13B rows fit to 0.1 %, the 7B rows to 1.2 %.",
                "A SwiGLU FFN has three matrices: the model really computes 1.28 times this count.",
            ),
        ),
        Paper(
            "llava-mini",
            "LLaVA-Mini, Tables 6 and 14: FLOPs by calflops, vision tower without attention",
            (
                "At 576 + 40 tokens the language model's 8.177 is exact; calflops sees the tower's "
                "convolution and linear layers, not its attention (0.033 more).",
                "Table 6 and Table 14 disagree on LLaVA-Mini: 4 pre-fusion layers cost 1.00 in the "
                "one and 0.125 in the other, and the totals are the same.",
            ),
        ),
        Paper(
            "pyramiddrop",
            "PyramidDrop, Tables 3 and 5-7: MACs of three FFN matrices, image tokens only",
            (
                "Four stages of equal depth see n, n lambda, n lambda^2, n lambda^3 tokens, "
                "unrounded.",
                "The printed number is multiply-accumulates: the FLOPs are twice that.",
            ),
        ),
        Paper(
            "shortv",
            "ShortV, Tables 1 and 2: FLOPs of three FFN matrices, 64 text tokens",
            (
                "A frozen layer computes text tokens in full and only keys and values of visual "
                "ones.",
                "FastV and VTW rows: K layers see all visual tokens, the rest half or none.",
            ),
        ),
        Paper(
            "sparsevlm",
            "SparseVLM, Table 1: MACs of three FFN matrices, about 119 text tokens",
            (
                "The text length is fitted to the rows without a schedule; the paper states none.",
                "Rows of methods that prune inside the model are counted at their mean token count, "
                "which is a lower bound: they are shown, not gated.",
                # The latencies beside the FLOPs are measured, and not here.
            ),
        ),
    )
}
