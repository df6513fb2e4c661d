"""PixelPrune: before the tower drop cells of a picture that the cells beside and above them foretell.

Source: Wang et al. 2026 and OPPO-Mente-Lab/PixelPrune, for models that take images at their own resolution.
A cell is the pixels of the patches that the merger makes one token of. With A left of it, B above and C
above left, a cell is foretold by B where C equals A and not B, else by A; those of the first row by A, of
the first column by B. What equals its prediction goes, pixel by pixel; the first cell stays. The tower, the
merger and the language model see the cells that are left, at their own places.

How many are left is the picture's: without keep it is priced at a half (screens keep 34 to 52 % and
documents 50 to 77 %, by the authors' account). Patches and windows are priced as shrinking alike.

Own FLOPs: none that a counter sees; two comparisons of every pixel.
"""

from __future__ import annotations

from costmodel.methods.info import MethodInfo
from costmodel.methods.keep import kept_count
from costmodel.methods.pieces import gather, passes, sort
from costmodel.methods.plan import MethodInput, MethodPlan, before_layers
from costmodel.methods.token_lists import items_of
from hardware_specs.errors import UnsupportedError

EXPECTED = 0.5


def refused(model: str) -> str:
    """Return why a model's pixels cannot be pruned."""
    return (
        f"pixelprune leaves cells of a picture out, and the tower of {model} takes whole crops; it works on "
        "models that keep an image's own resolution (Qwen's), and downsample on crops"
    )


def _plan(given: MethodInput) -> MethodPlan:
    tower = given.tower
    if not tower.native:
        raise UnsupportedError(refused(given.model.name))
    items, num, c = items_of(given), given.precision.vision, tower.hidden_size
    n, lists, runs = items.tokens, items.lists, items.runs
    kept = kept_count("pixelprune", given.keep, n)
    each = tower.merge**2
    pixels = lists * n * each * tower.num_channels * tower.tubelet * tower.patch_size**2
    ops = (
        passes("foretold", pixels, num, reads=4, writes=0.5, kernels=4, flops=2, count=runs),
        passes("cells", lists * n, num, reads=6, writes=5, kernels=14, flops=2, count=runs),
        sort("kept_cells", 1, lists * n, num, runs),
        gather("kept_pixels", lists * kept * each, pixels / (lists * n * each + (n == 0)), num, runs),
        gather("kept_patches", lists * kept * each, c, num, runs, kernels=2),
        gather("kept_rotations", lists * kept * each, 2 * tower.head_dim, num, runs, kernels=2),
        passes("put_back", lists * n * given.model.text.hidden_size, num, reads=1, writes=2,
               kernels=2, flops=0, count=runs),
    )  # fmt: skip
    tokens = items.per_sample * kept * runs
    note = {"pixelprune": "how many cells are left is the picture's; keep says what to price"}
    plan = before_layers(given, tokens, ops, note, projected=tokens)
    seen = given.seen
    return plan if seen is None else plan._replace(seen=seen.part(kept, n + (n == 0)))


INFO = MethodInfo(
    name="pixelprune",
    schedule=_plan,
    place="before-vision",
    summary="before the tower drop cells of a picture that the cells beside them foretell",
    formula="the picture decides; no FLOPs, two comparisons a pixel; the tower sees the cells that are left",
    complexity="O(pixels)",
    source="OPPO-Mente-Lab/PixelPrune at a870e31",
    default_text="what the picture decides, priced at half of the cells",
    needs_text="the pixels, as the processor of a model of native resolution lays them out",
    keep_meaning="cells of each image that are priced; a run keeps what the picture decides",
    expected_keep=EXPECTED,
    on_merged=True,
    count_known=False,
    published=("exact (threshold 0): 34-52 % of screens, 50-77 % of documents are left",),
)
