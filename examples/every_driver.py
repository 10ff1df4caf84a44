"""A memmap policy of one's own: every driver gets what only some ask for today.

Run it beside the rule as merged::

    altmap run scenarios/hyperv-64MiB-second-half.toml
           --policy opt-in --policy examples.every_driver:EveryDriver
"""

from altmap.model.arch import Arch
from altmap.model.kernel.memmap import AddRequest, Memmap, memmap_on_memory_nr_pages
from altmap.model.releases import Release


class EveryDriver:
    """A memmap at the start of each memory block, whether the driver asked for it or not."""

    name = "every-driver"
    written_at_add = None  # like the merged code: first written when the block goes online

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap:
        """Return one altmap per block, or existing memory where no block can host its own."""
        block = request.block_nr_pages
        hosted = memmap_on_memory_nr_pages(arch, release, block, request.mode)
        return Memmap(arch, request.pfns, block if hosted else 0, hosted)
