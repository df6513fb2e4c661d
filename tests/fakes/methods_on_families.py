"""Methods on a tiny model of a family: run and counted beside the cost model, or refused by both."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from costmodel import estimate
from costmodel.methods import get_method
from costmodel.models import load_model
from costmodel.models.families import get_family
from costmodel.scenario import visual_units
from hardware_specs.errors import InvalidInputError, UnsupportedError
from profiling.counting.one_run import count_run
from profiling.records.measurement import TOTAL, Configuration
from profiling.subject.execution import Execution
from profiling.subject.inputs import sizes_of
from profiling.subject.models import build_model

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
#: What is asked for where a method's defaults are meant for hundreds of tokens: its spelling, and keep.
ASKED: dict[str, tuple[str, float | None]] = {
    "dart": ("dart(layer=2,image_pivots=2,text_pivots=2)", 4),
    "sparsevlm": ("sparsevlm(layers=[2,4],counts=[8,4])", None),
    "fastv": ("fastv(layer=1)", 5),
    "v2drop": ("v2drop(layers=[2,4],shares=[0.5,0])", None),
    "vtw": ("vtw(layer=2)", None),
    "m3": ("m3", 1),
    "prumerge+": ("prumerge+", 4),
    "ats": ("ats", None),
    "vscan": ("vscan(shallow=1,cut=2)", 5),
    "hiprune": ("hiprune(shallow=2)", 5),
    "holov": ("holov(chunks=2)", 5),
    "holitom": ("holitom(threshold=1,cut=2)", 0.5),
    "pixelprune": ("pixelprune", None),
    "fastv(variant=paper)": ("fastv(variant=paper,layer=1)", 5),
    "evs/fastv": ("evs(keep=0.5)/fastv(layer=1,keep=0.5)", None),
    "dycoke(variant=both)": ("dycoke(variant=both)", 0.5),
    "dart(variant=embedding,keep=0.3)": ("dart(variant=embedding,keep=0.3)", None),
    **{
        name: (name, 0.5)
        for name in ("fitprune", "evit", "hired", "visionzip", "spatial", "cdpruner", "vispruner")
    },
    **{name: (name, 0.5) for name in ("dycoke", "fastvid", "downsample")},
    **{name: (name, 0.75) for name in ("tome", "crossget")},
}
#: What the first logits need.
STAGES = ("vision", "projector", "reduction", "prefill")


class OnFamily:
    """A tiny model, and the methods that are put into it.

    Args:
        source: the folder of its config.
        asked: its image or clip.
        clip: what methods that compare frames are given in its place.
    """

    def __init__(
        self, source: str, asked: dict[str, Any], clip: dict[str, Any] | None = None
    ) -> None:
        self.shape = load_model(source)
        self.model = build_model(source, dtype="fp32", device="cpu")
        self.asked, self.clip = asked, asked
        if clip is not None and get_family(self.shape.model_type).frames_as_images:
            self.clip = {"frames": clip["frames"]}
        elif clip is not None and hasattr(self.model.model, "get_video_features"):
            self.clip = clip
        self.given: dict[str, Any] = {}
        self.source = source

    def counted(self, method: str) -> dict[str, tuple[int, int]] | None:
        """FLOPs by stage as the cost model has them and as torch counts them; None where it is refused.

        `prefill` is everything up to the first logits: methods in the language model work inside it.
        """
        name, keep = ASKED.get(method, (method, 5))
        shape = self.clip if get_method(method).info.clips else self.asked
        return self.compared(name, keep, **shape)

    def compared(
        self, method: str, keep: float | None = None, **shape: Any
    ) -> dict[str, tuple[int, int]] | None:
        """The same for a method with its settings, on an image or clip of its own."""
        self.given = {"text_tokens": 9, "output_tokens": 1, **shape}
        priced = self._priced(method, keep)
        seen = self._ran(method, keep)
        assert (priced is None) == (seen is None), f"{method}: priced {priced}, ran {seen}"
        if priced is None or seen is None:
            return None
        return {stage: (priced[stage], seen.get(stage, 0)) for stage in priced}

    def _priced(self, method: str, keep: float | None) -> dict[str, int] | None:
        given = dict(self.given)
        size = given.get("image_size")
        units = visual_units(self.shape, given.get("images"), size, given.get("frames"))
        if units.counted.tokens != units.executed.tokens:
            # Papers count no class or newline token.
            given["visual_tokens"] = units.executed.tokens
        try:
            cost = estimate(
                self.shape, "a100", precision="fp32", execution="hf-eager", method=method, keep=keep,
                **given,
            )  # fmt: skip
        except (InvalidInputError, UnsupportedError):
            return None
        flops = {name: int(stage.flops) for name, stage in cost.stages.items()}
        return flops | {"prefill": sum(flops[name] for name in STAGES)}

    def _ran(self, method: str, keep: float | None) -> dict[str, int] | None:
        given = dict(self.given)
        sizes = sizes_of(given.pop("image_size", None))
        configuration = Configuration(
            self.source, "fp32", device="cpu", method=method, keep=keep,
            image_sizes=sizes, **given,
        )  # fmt: skip
        try:
            # The cost model takes all text to stand behind the image.
            with patch("profiling.subject.inputs._TEXT_BEFORE", 0):
                execution = Execution(self.model, self.shape, configuration)
            with execution.ready():
                stages, _ = count_run(execution)
        except (InvalidInputError, UnsupportedError):
            return None
        flops = {name: int(stage.flops or 0) for name, stage in stages.items()}
        return flops | {"prefill": flops[TOTAL]}

    def running(self) -> dict[str, dict[str, tuple[int, int]]]:
        """The methods that run, of all that the page names for any family, with their counts."""
        found = {method: self.counted(method) for method in sorted(set().union(*_rows().values()))}
        return {method: stages for method, stages in found.items() if stages is not None}


def said_of(label: str) -> set[str]:
    """The methods of a family's row in the page's table."""
    return _rows()[label]


def _rows() -> dict[str, set[str]]:
    """Families of the page's table and their methods."""
    table = PAGE.read_text(encoding="utf-8").split("| family | shipped |")[1].split("\n\n")[0]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table.splitlines()]
    return {row[0]: set(row[-1].split(", ")) for row in rows[2:]}
