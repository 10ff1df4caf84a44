"""Defaults and bounds that the schema, the model and the lab share."""

__all__ = (
    "BOOT_MEMORY_BYTES",
    "DEFAULT_RELEASE",
    "MOST_ALLOCATIONS",
    "MOST_BLOCKS",
    "MOST_CPUS",
    "MOST_NODES",
    "MOST_RATIO",
    "STRUCT_PAGE_SIZES",
    "XEN_HOST_BYTES",
    "XEN_OWN_BYTES",
)

#: The kernel's release of a scenario that names none, on the model and in the lab.
DEFAULT_RELEASE = "6.12"
#: Boot memory of a machine that names neither ``memory`` nor ``nodes``.
BOOT_MEMORY_BYTES = 1 << 30
#: Memory of a Xen host unless the scenario names it, and what Xen itself keeps at least.
XEN_HOST_BYTES = 4 << 30
XEN_OWN_BYTES = 256 << 20

#: Sizes of a struct page: with all that configurations add, of distributions, without MEMCG, and
#: those proposed.
STRUCT_PAGE_SIZES = (80, 64, 56, 32, 8)
MOST_BLOCKS = 1 << 20
MOST_CPUS = 8192  # CONFIG_NR_CPUS of distributions
MOST_NODES = 1024  # MAX_NUMNODES
MOST_RATIO = (1 << 32) - 1
MOST_ALLOCATIONS = 2  # of an add: its memmap, and its page tables
