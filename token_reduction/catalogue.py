"""The table of methods: place, source, defaults, options.

One entry per method and nothing computed; the functions are in the modules of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from token_reduction.options import (
    Option,
    choice,
    dtype_name,
    flag,
    fraction,
    grid,
    layer_indices,
    merged_tokens,
    optional,
    path_text,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from token_reduction.keep import Rounding

Place = Literal["after-vision", "after-projector", "llm-layer", "vision-layers"]


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What is known of a method before anything is asked of it.

    Attributes:
        name: the method's name.
        place: where it acts.
        source: paper and program.
        summary: one line.
        needs: what its function takes beside the tokens.
        keep_meaning: what `keep` counts.
        default_keep: used for keep=None; None where the data decide.
        rounding: how a ratio becomes a count; None where keep does not count tokens.
        keep_kind: "any", "ratio" (no count) or "none".
        keep_choices: the only values there are, when not empty.
        default_layer: language-model layer for layer=None.
        takes_layer: whether `layer` may be given.
        variants: "program" first.
        variant_needs: needs of a variant where they differ.
        options: the method's own options.
        trained: whether the published results need weights trained for it.
    """

    name: str
    place: Place
    source: str
    summary: str
    needs: frozenset[str] = frozenset()
    keep_meaning: str = "visual tokens kept"
    default_keep: int | float | None = None
    rounding: Rounding | None = "nearest"
    keep_kind: Literal["any", "ratio", "none"] = "any"
    keep_choices: tuple[int, ...] = ()
    default_layer: int | None = None
    takes_layer: bool = False
    variants: tuple[str, ...] = ("program",)
    variant_needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    trained: bool = False


_NEIGHBOURS = {
    "neighbours": Option(32, whole(0), "an integer >= 0", "tokens merged into each kept one")
}
_PRUMERGE = "Shang et al. 2024, LLaVA-PruMerge; 42Shawn/LLaVA-PruMerge"

_ENTRIES = (
    MethodInfo(
        name="prumerge",
        place="after-vision",
        source=_PRUMERGE,
        summary="keep the patches the class token attends to most, merge the others into them",
        needs=frozenset({"clip_qk"}),
        keep_meaning="patches chosen by attention; one merged token comes on top",
        rounding="down",
        variants=("program", "paper"),
        options=_NEIGHBOURS,
    ),
    MethodInfo(
        name="prumerge+",
        place="after-vision",
        source=_PRUMERGE,
        summary="PruMerge with an evenly spaced grid of patches added",
        needs=frozenset({"clip_qk"}),
        keep_meaning="patches chosen by attention; the grid and one merged token come on top",
        rounding="down",
        variants=("program", "paper"),
        options=_NEIGHBOURS,
    ),
    MethodInfo(
        name="divprune",
        place="after-projector",
        source="Alvar et al. 2025, DivPrune; vbdi/divprune",
        summary="keep the tokens farthest from each other (greedy max-min cosine distance)",
        default_keep=0.098,
        takes_layer=True,
        options={
            "compute_dtype": Option(
                None,
                optional(dtype_name),
                "float16, bfloat16, float32, float64 or None",
                "precision of the distances; None is the tokens' own",
            )
        },
    ),
    MethodInfo(
        name="fastv",
        place="llm-layer",
        source="Chen et al. 2024, FastV; pkunlp-icler/FastV",
        summary="at LLM layer K keep the image tokens the last token attends to at layer K-1",
        needs=frozenset({"llm_attention_row"}),
        default_keep=0.5,
        default_layer=2,
        takes_layer=True,
        variants=("program", "paper"),
        variant_needs={"paper": frozenset({"llm_attention_full"})},
        options={"seed": Option(0, whole(0), "an integer >= 0", "randomness of K = 0")},
    ),
    MethodInfo(
        name="vtw",
        place="llm-layer",
        source="Lin et al. 2024, VTW; lzhxmu/VTW",
        summary="at LLM layer K drop every image token",
        keep_meaning="it keeps no image token from layer K on, by default 16 of 32 and 20 of 40",
        keep_kind="none",
        rounding=None,
        takes_layer=True,
    ),
    MethodInfo(
        name="fitprune",
        place="llm-layer",
        source="Ye et al. 2024, FitPrune; ywh187/FitPrune",
        summary="delete a fitted number of image tokens after attention in every LLM layer",
        needs=frozenset({"llm_attention_full"}),
        keep_meaning="share of the visual tokens' FLOPs that is left",
        default_keep=0.4,
        rounding=None,
        keep_kind="ratio",
        options={
            "scheme": Option(
                None,
                optional(layer_indices),
                "a list of integers >= 0 or None",
                "tokens deleted in each layer; None is the shipped scheme for keep",
            )
        },
    ),
    MethodInfo(
        name="tome",
        place="vision-layers",
        source="Bolya et al. 2023, Token Merging; facebookresearch/ToMe",
        summary="merge r pairs of similar tokens in every vision layer",
        needs=frozenset({"clip_keys"}),
        keep_meaning="patch tokens left when the features are read; None merges r per layer",
        options={
            "r": Option(
                13,
                merged_tokens,
                "an integer >= 0 or a list of them, one per layer",
                "pairs merged per layer; 13 is CrossGET's on the same tower",
            ),
            "inflect": Option(
                0.0, fraction(-1.0, 1.0), "a number in [-1, 1]", "slope of r over the layers"
            ),
            "proportional": Option(
                True, flag, "True or False", "add log(size) to the attention logits"
            ),
        },
    ),
    MethodInfo(
        name="ats",
        place="vision-layers",
        source="Fayyaz et al. 2022, Adaptive Token Sampling; adaptivetokensampling/ATS",
        summary="sample tokens by class attention and value norm inside the vision layers",
        needs=frozenset({"clip_attention", "clip_values"}),
        keep_meaning="reference samples; as many tokens at most",
        default_keep=1.0,
        options={
            "layers": Option(
                tuple(range(3, 12)), layer_indices, "a list of layers", "DeiT-S: blocks 3 to 11"
            ),
            "minimum": Option(8, whole(2), "an integer >= 2", "fewest reference samples"),
        },
    ),
    MethodInfo(
        name="evit",
        place="vision-layers",
        source="Liang et al. 2022, EViT; youweiliang/evit",
        summary="keep the patches the class token attends to, fuse the rest into one, three times",
        needs=frozenset({"clip_attention"}),
        keep_meaning="patches kept at each of its layers",
        default_keep=0.7,
        rounding="up",
        options={
            "layers": Option((3, 6, 9), layer_indices, "a list of layers", "counted from 0"),
            "fuse": Option(True, flag, "True or False", "append the fused token"),
        },
    ),
    MethodInfo(
        name="crossget",
        place="vision-layers",
        source="Shi et al. 2024, CrossGET; sdc17/CrossGET",
        summary="merge r tokens per vision layer on a complete graph, guided by a learned token",
        needs=frozenset({"clip_keys", "clip_attention", "cross_token"}),
        keep_meaning="patch tokens left when the features are read; None merges r per layer",
        options={
            "r": Option(
                13,
                merged_tokens,
                "an integer >= 0 or a list of them, one per layer",
                "tokens merged per layer",
            ),
            "weights": Option(
                None,
                optional(path_text),
                "a safetensors file or None",
                "the learned cross tokens; random without",
            ),
        },
        trained=True,
    ),
    MethodInfo(
        name="sequential",
        place="after-vision",
        source="Shang et al. 2024, LLaVA-PruMerge, Table 4 (no program)",
        summary="the first tokens in raster order: a baseline",
        default_keep=40,
    ),
    MethodInfo(
        name="spatial",
        place="after-vision",
        source="Shang et al. 2024, LLaVA-PruMerge, Table 4 (no program)",
        summary="an evenly spaced grid of tokens: a baseline",
        default_keep=40,
        variants=("program", "strided"),
        options={
            "grid": Option(
                None,
                optional(grid),
                "(rows, columns) or None",
                "the grid itself; None is the squarest with keep cells",
            )
        },
    ),
    MethodInfo(
        name="m3",
        place="after-projector",
        source="Cai et al. 2024, Matryoshka Multimodal Models",
        summary="average-pool the patch grid",
        keep_meaning="tokens after pooling; its root must divide the side of the grid",
        default_keep=36,
        trained=True,
    ),
    MethodInfo(
        name="visionzip",
        place="after-vision",
        source="Yang et al. 2025, VisionZip; dvlab-research/VisionZip",
        summary="keep the patches the class token attends to, merge the others into a few",
        needs=frozenset({"clip_attention", "clip_keys"}),
        keep_meaning="tokens of each crop: dominant ones, the class token and 10 merged of 64",
        default_keep=64,
    ),
    MethodInfo(
        name="fastervlm",
        place="after-projector",
        source="Zhang et al. 2024, FasterVLM; Theia-4869/FasterVLM",
        summary="after the projector keep the patches the class token attends to most",
        needs=frozenset({"clip_attention"}),
        keep_meaning="patches of each crop kept",
        default_keep=0.05,
    ),
    MethodInfo(
        name="vispruner",
        place="after-projector",
        source="Zhang et al. 2025, VisPruner; Theia-4869/VisPruner",
        summary="keep patches by class attention, and of the others those unlike each other",
        needs=frozenset({"clip_attention", "clip_features"}),
        keep_meaning="patches of each crop kept",
        default_keep=64,
        options={
            "important": Option(
                0.5, fraction(0.0, 1.0), "a number in [0, 1]", "share of them chosen by attention"
            )
        },
    ),
    MethodInfo(
        name="cdpruner",
        place="after-projector",
        source="Zhang et al. 2025, CDPruner; Theia-4869/CDPruner",
        summary="keep patches that fit the question and differ from each other (greedy DPP)",
        needs=frozenset({"clip_features", "clip_joint_space"}),
        keep_meaning="patches of each crop kept",
        default_keep=64,
        options={
            "embeddings": Option(
                None,
                optional(path_text),
                "a safetensors file or None",
                "CLIP's visual_projection.weight and the question's text_embeds; random without",
            )
        },
    ),
    MethodInfo(
        name="hired",
        place="after-projector",
        source="Arif et al. 2025, HiRED; hasanar1f/HiRED",
        summary="a budget of tokens for each tile of an image, spent by class attention",
        needs=frozenset({"clip_attention"}),
        keep_meaning="budget of patches of all crops; newline tokens come on top",
        default_keep=0.2,
        rounding="down",
        variants=("program", "paper"),
        options={
            "alpha": Option(
                0.5, fraction(0.0, 1.0), "a number in [0, 1]", "the whole image's share of it"
            )
        },
    ),
    MethodInfo(
        name="pyramiddrop",
        place="llm-layer",
        source="Xing et al. 2025, PyramidDrop; Cooperx521/PyramidDrop",
        summary="after each quarter of the LLM keep half of the image tokens that are left",
        needs=frozenset({"llm_query", "llm_keys"}),
        keep_meaning="share of the image tokens left that each stage keeps, or a count",
        default_keep=0.5,
        rounding="down",
        options={
            "layers": Option(
                None,
                optional(layer_indices),
                "a list of layers or None",
                "layers before which tokens are dropped; None is each quarter: 8, 16, 24 of 32",
            )
        },
    ),
    MethodInfo(
        name="dart",
        place="llm-layer",
        source="Wen et al. 2025, DART; ZichenWen1/DART",
        summary="at LLM layer K keep a few pivots and the image tokens least like them",
        needs=frozenset({"llm_keys", "llm_states"}),
        keep_meaning="tokens taken by the pivots, rounded up to their number; image pivots on top",
        default_keep=128,
        default_layer=2,
        takes_layer=True,
        options={
            "image_pivots": Option(4, whole(0), "an integer >= 0", "pivots among the image tokens"),
            "text_pivots": Option(4, whole(0), "an integer >= 0", "pivots in the text behind them"),
            "order": Option(
                "set",
                choice("set", "norm"),
                "'set' or 'norm'",
                "whose turn is first: as the program's set of them has it, or by falling norm",
            ),
        },
    ),
    MethodInfo(
        name="sparsevlm",
        place="llm-layer",
        source="Zhang et al. 2025, SparseVLM; Gumpest/SparseVLMs v1.5",
        summary="behind three LLM layers keep what the text looks at, and recycle some of the rest",
        needs=frozenset({"llm_attention_rows", "llm_states"}),
        keep_meaning="a published setting, named by its mean number of tokens over the layers",
        default_keep=192,
        rounding=None,
        keep_choices=(192, 128, 96, 64),
        options={
            "layers": Option(
                (2, 6, 15), layer_indices, "a list of layers", "tokens are dropped behind them"
            ),
            "counts": Option(
                None,
                optional(layer_indices),
                "a list of integers >= 0, one per layer, or None",
                "image tokens kept behind each layer; None is the published list for keep",
            ),
        },
    ),
)

METHODS: dict[str, MethodInfo] = {entry.name: entry for entry in _ENTRIES}
