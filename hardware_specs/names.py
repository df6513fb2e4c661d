"""Names of devices, made comparable: with or without vendor, in any case, spaces as hyphens.

Detection, calibration and reconciling compare names by `plain_name` and no other way, and
`get_hardware` reads its aliases by it. What is left out is what drivers and lists leave out: the
vendor, the brand, trademark signs, and the kernel driver that JetPack puts behind the name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Words before a name that some drivers and lists print and others do not.
_BRANDS = frozenset(
    {"nvidia", "amd", "apple", "intel", "google", "tesla", "geforce", "tegra", "instinct"}
)

#: Signs inside a name, and JetPack's `Orin (nvgpu)`.
_IGNORED = re.compile(r"\((?:tm|r|c|nvgpu)\)")

#: Words that ROCm puts behind a product: its module, or one virtual function that has all of it.
_FORMS = ("oam", "vf", "accelerator", "mcm", "ac", "mba")

#: What ROCm prints, without vendor, where it knows no name of the product.
_GENERIC = frozenset({"", "radeongraphics"})

#: The usual member of a family of devices, by the name people type.
USUAL = {
    "h100": "nvidia-h100-sxm5-80gb",
    "h100sxm": "nvidia-h100-sxm5-80gb",
    "h100sxm5": "nvidia-h100-sxm5-80gb",
    "h100pcie": "nvidia-h100-pcie-80gb",
    "h100nvl": "nvidia-h100-nvl-94gb",
    "h200": "nvidia-h200-sxm-141gb",
    "h20": "nvidia-h20-96gb",
    "gh200": "nvidia-gh200-96gb",
    "b200": "nvidia-b200-sxm-180gb",
    "gb200": "nvidia-gb200-186gb",
    "a100": "nvidia-a100-sxm4-80gb",
    "a10080gb": "nvidia-a100-sxm4-80gb",
    "a10040gb": "nvidia-a100-sxm4-40gb",
    "a100sxm4": "nvidia-a100-sxm4-80gb",
    "a100pcie": "nvidia-a100-pcie-80gb",
    "v100": "nvidia-v100-sxm2-16gb",
    "v10016gb": "nvidia-v100-sxm2-16gb",
    "v10032gb": "nvidia-v100-sxm2-32gb",
    "3090": "nvidia-rtx-3090",
    "4090": "nvidia-rtx-4090",
    "5090": "nvidia-rtx-5090",
    "a5000": "nvidia-rtx-a5000",
    "a6000": "nvidia-rtx-a6000",
    "6000ada": "nvidia-rtx-6000-ada",
    "rtxpro6000": "nvidia-rtx-pro-6000-blackwell-ws",
    "orin": "nvidia-jetson-agx-orin-64gb",
    "agxorin": "nvidia-jetson-agx-orin-64gb",
    "jetsonagxorin": "nvidia-jetson-agx-orin-64gb",
    "orinnx": "nvidia-jetson-orin-nx-16gb",
    "jetsonorinnx": "nvidia-jetson-orin-nx-16gb",
    "orinnano": "nvidia-jetson-orin-nano-8gb",
    "jetsonorinnano": "nvidia-jetson-orin-nano-8gb",
    "thor": "nvidia-jetson-agx-thor-128gb",
    "agxthor": "nvidia-jetson-agx-thor-128gb",
    "jetsonagxthor": "nvidia-jetson-agx-thor-128gb",
    "gb10": "nvidia-dgx-spark-128gb",
    "dgxspark": "nvidia-dgx-spark-128gb",
    "gaudi3": "intel-gaudi3-oam",
    "v5e": "google-tpu-v5e",
    "v5p": "google-tpu-v5p",
    "v6e": "google-tpu-v6e",
}


def plain_name(name: str) -> str:
    """Return a name in lower case, without vendor, brand, spaces and hyphens.

    >>> plain_name("NVIDIA A100-SXM4-80GB"), plain_name("a100 sxm4 80gb")
    ('a100sxm480gb', 'a100sxm480gb')
    >>> plain_name("Orin (nvgpu)"), plain_name("AMD Radeon(TM) Graphics")
    ('orin', 'radeongraphics')
    """
    return "".join(_words(name))


def without_form(name: str) -> str:
    """Return the plain name of the product that a name with a form of it stands for.

    >>> without_form("AMD Instinct MI300X OAM"), without_form("AMD Instinct MI308X")
    ('mi300x', 'mi308x')
    """
    words = _words(name)
    while len(words) > 1 and words[-1] in _FORMS:
        words.pop()
    return "".join(words)


def is_generic(name: str) -> bool:
    """Tell whether ROCm prints this name for products that it cannot name.

    >>> is_generic(""), is_generic("AMD Radeon Graphics"), is_generic("AMD Instinct MI300X")
    (True, True, False)
    """
    return plain_name(name) in _GENERIC


def may_name(name: str, listed: Iterable[str]) -> bool:
    """Tell whether a driver may have printed this name for a device with these listed names.

    >>> may_name("A100-SXM4-80GB", ["NVIDIA A100-SXM4-80GB"])
    True
    >>> may_name("A100-SXM4-40GB", ["NVIDIA A100-SXM4-80GB"])
    False
    """
    names = tuple(listed)
    if is_generic(name):
        return any(_vendor(each) == "amd" for each in names)
    plain = {plain_name(each) for each in names}
    return plain_name(name) in plain or without_form(name) in plain


def _words(name: str) -> list[str]:
    words = re.findall(r"[^\W_]+", _IGNORED.sub(" ", name.lower()))
    while words and words[0] in _BRANDS:
        words.pop(0)
    return words


def _vendor(name: str) -> str:
    return name.lower().replace("-", " ").partition(" ")[0]
