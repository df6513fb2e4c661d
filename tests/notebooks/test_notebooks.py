"""The notebooks run from top to bottom, and the pages match their sources."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))


def test_there_are_notebooks() -> None:
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_page_matches_its_source(source: Path) -> None:
    import jupytext

    page = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    shown = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in page["cells"]]
    written = [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(source).cells]
    assert shown == written
    errors = [o for c in page["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"]
    assert errors == []


def test_its_measurements_are_those_of_the_data_set() -> None:
    copied = ROOT / "notebooks" / "data" / "amd-epyc-sweep.jsonl"
    measured = ROOT / "measurements" / "amd-epyc-2026-11-20" / "sweep.jsonl"
    assert copied.read_bytes() == measured.read_bytes()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(source: Path, tmp_path: Path) -> None:
    """In a kernel of its own, in a folder of its own, so that the shipped page stays as it is."""
    import nbformat
    from nbclient import NotebookClient

    page = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    shutil.copytree(source.parent / "data", tmp_path / "data")
    NotebookClient(page, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
