"""What a model computes, written once: the blocks of its layers.

A block says what is computed over which rows, not how it is launched: that is an execution plan's
affair (`costmodel.plans`), which lowers blocks to ops. Parameters, FLOPs, bytes, kernels, KV cache
and memory all follow from the blocks.

Rows are named, and whoever runs the blocks says how many there are:

- `entering`, `out`, `mlp` in a layer: the tokens that enter it, those that pass its output
  projection, those that pass its MLP, each times the batch;
- `image`, `patch`, `token`, `merged` in a vision tower: crops, their patches, their tokens, and the
  tokens that a merger makes of them;
- `projected` in the bridge from the tower to the language model;
- `text`, `all`, `logits` around the language model's layers: the text, the whole prompt, and the
  positions whose logits are computed.

`mlp/2` are those of the fullest of two ranks that share the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from hardware_specs.showing import brief

if TYPE_CHECKING:
    from collections.abc import Iterable


class Block(Protocol):
    """Any block: it knows its parameters."""

    @property
    def parameters(self) -> int:
        """Numbers that training sets."""


def parameters(blocks: Iterable[Block]) -> int:
    """Return the parameters of blocks together.

    >>> parameters([dense("fc1", 4, 8, "mlp", bias=True), Activate("gelu", 8, "mlp", "gelu")])
    40
    """
    return sum(block.parameters for block in blocks)


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over rows of a width: `rms` has a scale, `layer` a scale and a shift.

    Attributes:
        name: of the op.
        width: d.
        rows: which rows it runs over.
        kind: `rms` or `layer`.
        after_residual: whether it reads the stream right after a residual add, which serving
            engines run in the same kernel.
        feeds: the module of `Precision` that reads the result; empty is the one the norm stands in.
        per_row: vectors of that width in each row, such as the heads of a query.
        offset: whether the scale is stored less one, and added up in float32.
    """

    name: str
    width: int
    rows: str
    kind: str
    after_residual: bool = False
    feeds: str = ""
    per_row: int = 1
    offset: bool = False

    @property
    def parameters(self) -> int:
        """A scale per feature, and a shift in a layer norm."""
        return self.width * (1 if self.kind == "rms" else 2)


@dataclass(frozen=True, slots=True)
class Project:
    """Linear layers that read the same rows: y_i[m, n_i] = x[m, k] @ w_i[k, n_i].

    Attributes:
        name: of the one product that serving engines make of them.
        width: k.
        parts: name and n of each, as the library keeps them.
        rows: which rows they run over.
        bias: whether they have one.
        reads: what their input is called where a plan quantises it in a kernel of its own.
        module: whose numerics they have in `Precision`; empty is the module they stand in.
        shared: whether their weights are those of another block, such as a tied head's.
        experts: how many of them there are, of which a router chooses for each row; 0 is one for all.
        chosen: experts that a row goes through.
    """

    name: str
    width: int
    parts: tuple[tuple[str, int], ...]
    rows: str
    bias: bool = False
    reads: str = ""
    module: str = ""
    shared: bool = False
    experts: int = 0
    chosen: int = 1

    @property
    def outputs(self) -> int:
        """Features of all parts together."""
        return sum(n for _, n in self.parts)

    @property
    def parameters(self) -> int:
        """Of each part k n, and n with a bias, in every expert; 0 for shared weights."""
        if self.shared:
            return 0
        return (self.width + self.bias) * self.outputs * max(self.experts, 1)


def dense(name: str, k: int, n: int, rows: str, *, bias: bool = False, reads: str = "") -> Project:
    """Return a single linear layer from width k to width n."""
    return Project(name, k, ((name, n),), rows, bias, reads)


@dataclass(frozen=True, slots=True)
class Rotate:
    """Rotary positions of q and k, and the write of k and v into the cache where there is one.

    Attributes:
        heads: h.
        kv_heads: k.
        head_dim: e.
        rows: which rows it runs over where there is no cache; empty with a cache.
        in_float32: whether libraries cast q and k to float32 and back.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rows: str = ""
    in_float32: bool = False
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Attend:
    """Attention of h heads over k KV heads of dim e.

    Attributes:
        heads: h.
        kv_heads: k.
        head_dim: e.
        causal: whether a query sees only the keys up to its own.
        cached: whether K and V come from the KV cache.
        written: whether the scores are written out whatever the plan and the request say.
        window: keys that a query sees at most, its own among them; 0 for all.
        both_ways: tokens of an image that see each other in the prefill whatever their order; 0 for none.
        pieces: the name of the pieces that attend each to itself, where a stage has rows of several
            lengths: images of their own resolution, or windows. Empty is one length for all.
    """

    heads: int
    kv_heads: int
    head_dim: int
    causal: bool
    cached: bool
    written: bool = False
    window: int = 0
    pieces: str = ""
    both_ways: int = 0
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Activate:
    """An activation over f features; a gated one multiplies it with a second input of the same width.

    `per_row` is how many times a row has them, such as once for each of its experts.
    """

    name: str
    width: int
    rows: str
    function: str
    gated: bool = False
    per_row: int = 1
    parameters: ClassVar[int] = 0

    @property
    def chained(self) -> bool:
        """Whether libraries that lack a kernel for the function compute it in a chain of three."""
        return self.function in ("quick_gelu", "softcap")


@dataclass(frozen=True, slots=True)
class Residual:
    """The add of a branch to the stream; it ends the branch."""

    name: str
    width: int
    rows: str
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Route:
    """The choice of experts: a softmax over all, the largest few, and the rows in their order."""

    name: str
    experts: int
    chosen: int
    width: int
    rows: str
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Combine:
    """The sum of what a row's experts gave, each weighed by its router."""

    name: str
    chosen: int
    width: int
    rows: str
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """A learned scale of every feature (LayerScale)."""

    name: str
    width: int
    rows: str

    @property
    def parameters(self) -> int:
        """One for each feature."""
        return self.width


@dataclass(frozen=True, slots=True)
class Embed:
    """A look-up of rows in a table of v rows of width d, each number scaled where `scaled`."""

    name: str
    table: int
    width: int
    rows: str
    module: str = ""
    scaled: bool = False

    @property
    def parameters(self) -> int:
        """The table: v d."""
        return self.table * self.width


@dataclass(frozen=True, slots=True)
class Positions:
    """A learned position per token, added to the rows of every crop; looked up where it is a table."""

    name: str
    tokens: int
    width: int
    rows: str
    looked_up: bool = True

    @property
    def parameters(self) -> int:
        """The table: tokens x width."""
        return self.tokens * self.width


@dataclass(frozen=True, slots=True)
class Resample:
    """Learned positions of a square table, interpolated between its nearest to a row's own place."""

    name: str
    table: int
    width: int
    rows: str
    taps: int = 4

    @property
    def parameters(self) -> int:
        """The table: positions x width."""
        return self.table * self.width


@dataclass(frozen=True, slots=True)
class Prepend:
    """A learned token set before the rows of every crop, such as CLIP's class token."""

    name: str
    width: int
    rows: str

    @property
    def parameters(self) -> int:
        """The token."""
        return self.width


@dataclass(frozen=True, slots=True)
class Convolve:
    """A patch embedding, whose windows of k numbers do not overlap, into n channels."""

    name: str
    window: int
    channels: int
    rows: str
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Of the window k n, and n with a bias."""
        return (self.window + self.bias) * self.channels


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Rows of a width laid out anew, every number copied once: a merge, a pixel shuffle."""

    name: str
    width: int
    rows: str
    module: str = ""
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """The mean of some rows of a width, for each row that comes out."""

    name: str
    width: int
    rows: str
    pooled: int
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Join:
    """Pieces that were computed one by one, set together again by libraries that loop over them."""

    name: str
    width: int
    rows: str
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Inject:
    """Features added to the rows of visual tokens behind a layer, in the prefill alone (deepstack)."""

    name: str
    width: int
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Angles:
    """Cosine and sine of every position, shared by all layers and samples."""

    head_dim: int
    rows: str = "queries"
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Mask:
    """The causal mask of an attention that needs one, cut to a sliding window where that is not 0.

    `always` says that a prefill needs one whatever its length: images that see all of themselves.
    """

    window: int = 0
    always: bool = False
    parameters: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """Parameters that no kernel of their own reads, such as the probe of a pooling head."""

    parameters: int


@dataclass(frozen=True, slots=True)
class Plain:
    """Blocks that launch one kernel each under every plan."""

    blocks: tuple[Block, ...]

    @property
    def parameters(self) -> int:
        """Those of its blocks."""
        return parameters(self.blocks)


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers one after the other, with what comes before and after them.

    Attributes:
        before: what runs once before the layers.
        kinds: the layers there are, each as blocks.
        pattern: the kind of every layer, first to last.
        after: what runs once after the layers.
        labels: what to add to the names of the ops of each kind where there are several, unless the
            blocks have names of their own; empty adds nothing.

    >>> small, large = (dense("fc", 1, 1, "mlp"),), (dense("wide_fc", 10, 10, "mlp"),)
    >>> Stack((), (small, large), (0, 0, 1), ()).parameters  # 1 + 1 + 100
    102
    """

    before: tuple[Block, ...]
    kinds: tuple[tuple[Block, ...], ...]
    pattern: tuple[int, ...]
    after: tuple[Block, ...]
    labels: tuple[str, ...] = ()

    __repr__ = brief

    @property
    def windows(self) -> tuple[int, ...]:
        """The sliding window of each kind, 0 for none."""
        return tuple(
            max((block.window for block in kind if isinstance(block, Attend)), default=0)
            for kind in self.kinds
        )

    @property
    def layer_parameters(self) -> int:
        """All layers together."""
        each = [parameters(kind) for kind in self.kinds]
        return sum(each[kind] for kind in self.pattern)

    @property
    def parameters(self) -> int:
        """All of it."""
        return parameters(self.before) + self.layer_parameters + parameters(self.after)
