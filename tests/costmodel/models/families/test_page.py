"""The page on families has a row for each, with the sizes that are shipped."""

from __future__ import annotations

from pathlib import Path

from costmodel.models import list_models, load_model
from costmodel.models.families import get_family, list_families

PAGE = Path(__file__).parents[4] / "docs" / "families.md"


def test_every_family_and_every_shipped_size_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.split("| family | shipped |")[1].split("\n\n")[0].splitlines()[2:]
    said = {
        row[0].removeprefix("| "): set(row[1].split(", "))
        for row in (r.split(" | ") for r in table)
    }
    shipped: dict[str, set[str]] = {get_family(kind).label: set() for kind in list_families()}
    for name in list_models():
        kind = load_model(name).model_type
        if kind in list_families():
            shipped[get_family(kind).label].add(name)
    assert said == shipped
