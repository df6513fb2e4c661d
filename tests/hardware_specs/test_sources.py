"""The documents, the evidence codes, and what other lists print."""

from __future__ import annotations

import pytest

from hardware_specs import (
    get_hardware,
    get_node,
    list_disagreements,
    list_hardware,
    list_nodes,
    list_sources,
)
from hardware_specs.schema import EVIDENCE_CODES
from hardware_specs.sources import explain_evidence, is_weak


def test_documents_have_titles_and_addresses() -> None:
    sources = list_sources()
    assert len(sources) >= 45
    for key, source in sources.items():
        assert source.key == key
        assert source.document
        assert source.url == "" or source.url.startswith("https://")


def test_every_document_is_used() -> None:
    used = {"h100_pb", "torch215"}  # named in a note and in the disagreements
    for hardware_id in list_hardware():
        spec = get_hardware(hardware_id)
        used |= {key for origin in spec.provenance.values() for key in origin.source}
        used |= {rate.source for rate in spec.measured}
    used |= {key for name in list_nodes() for key in get_node(name).provenance.source}
    assert set(list_sources()) - used == set()


@pytest.mark.parametrize("code", EVIDENCE_CODES)
def test_every_code_is_explained(code) -> None:
    assert explain_evidence(code)
    assert is_weak(code) == (code[0] in "M3")


def test_weak_evidence_stays_visible() -> None:
    codes = [o.evidence for i in list_hardware() for o in get_hardware(i).provenance.values()]
    assert sum(map(is_weak, codes)) > 100


def test_disagreements_are_all_there_and_attributed() -> None:
    rows = list_disagreements()
    assert len(rows) == 63
    assert all(row.about and row.field and row.list and row.right for row in rows)
    named = {hardware_id for row in rows for hardware_id in row.devices}
    assert named <= set(list_hardware())
    assert len(named) > 25
    assert all(list_disagreements(hardware_id) for hardware_id in named)


def test_no_shipped_figure_is_the_mistaken_one() -> None:
    # One row per kind of mistake: bandwidth of another card, sparse as dense, vector rate for the
    # tensor rate, half a package, doubled twice, GB/s times 2**30.
    assert get_hardware("nvidia-l4").bandwidth_bytes_per_s != 3350e9
    assert get_hardware("nvidia-l4").peak("bf16") == 121e12
    assert get_hardware("nvidia-gh200-96gb").peak("bf16") == 989.4e12
    assert get_hardware("nvidia-rtx-3090").peak("bf16") == 71e12
    assert get_hardware("nvidia-b200-sxm-180gb").memory_bytes == 180 * 2**30
    assert get_hardware("apple-m3-ultra").peak("fp32", "vector") == 28.3e12
    assert get_hardware("nvidia-a100-sxm4-40gb").bandwidth_bytes_per_s == 1555e9
    assert get_hardware("nvidia-h100-sxm5-80gb").peak_or_none("int4") is None
    assert get_hardware("nvidia-a100-sxm4-80gb").peak_or_none("fp8") is None
