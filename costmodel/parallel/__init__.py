"""Several devices: a plan of parallelism, the model that each rank holds, and what ranks send each other.

- `degrees`: tensor, pipeline and data parallelism as one object;
- `exchange`: the block that is a collective;
- `sharding`: from a model to the model of one rank, block by block;
- `links`, `link_fit`: how long collectives take over a link, and the constants behind it;
- `network`: the links between the ranks of a device, which prices their collectives.
"""

from __future__ import annotations

from costmodel.parallel.degrees import Parallel

__all__ = ["Parallel"]
