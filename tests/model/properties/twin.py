"""A slow twin of the kernel's hotplug core: one entry per page frame, every number by counting.

It knows nothing of the model but the sizes of the machine that both are given. Its rules are those
of the kernel as read in its source, in the kernel's own steps: block by block, spans by scanning
page frames, counters by counting them.

A kernel does not promise which page frames an allocation takes. Whoever drives the twin tells it
the frames, and the twin checks that the kernel could have taken them: so many, free, from the zones
that come first. One rule is the model's own and is stated again here: when the highest kernel zone
of a node with CPUs gets its first pages, the kernel's next unmovable allocation lands in it; the
first page of the first free chunk of the highest order stands for it.
"""

from dataclasses import dataclass, field

import numpy as np

#: What a page frame is; the first two have no page that a zone counts as present.
NOTHING, HOLE, RESERVED, FREE, UNMOVABLE, MOVABLE, MEMMAP = range(7)
#: A pinned page, a withdrawn one, pages of a free huge page, and of one that a file holds.
PINNED, POISONED, HUGE, HUGE_USED = range(7, 11)
USED = (UNMOVABLE, MOVABLE, PINNED, POISONED, HUGE, HUGE_USED)
PRESENT = (RESERVED, FREE, MEMMAP, *USED)
#: Pages of a huge page.
CHUNK = 16
NO_ZONE = -1


@dataclass
class Added:
    start: int
    end: int
    node: int
    memmap_per_block: int
    host_pages: list[int] = field(default_factory=list)


@dataclass
class Sizes:
    """What the machine is made of, in pages unless the name says otherwise."""

    page_bytes: int
    struct_page_bytes: int
    section: int
    subsection: int
    pageblock: int
    max_order: int
    pmd_bytes: int
    block: int
    limit: int


class Twin:
    """A machine of few pages.

    Parameters
    ----------
    sizes : Sizes
    zone_names : list of str
        Every node's zones, lowest first, ``Movable`` last.
    nr_nodes : int
    one_block_only : bool
        The releases in which one altmap serves a request of exactly one block and any other
        request that asks for it is refused (5.13 to 6.5).
    """

    def __init__(self, sizes, zone_names, nr_nodes, *, one_block_only, mode, movable_node):
        self.cpu_nodes = {0}
        self.sizes = sizes
        self.zone_names = zone_names
        self.nr_nodes = nr_nodes
        self.one_block_only = one_block_only
        self.mode = mode
        self.movable_node = movable_node
        self.auto_online = "offline"
        self.keys = [(node, name) for node in range(nr_nodes) for name in zone_names]
        self.spans = dict.fromkeys(self.keys, (0, 0))
        #: Indexed by pfn: what it is, and the index of the zone that its struct page is linked to.
        self.kind = np.zeros(sizes.limit, np.int8)
        self.zone = np.full(sizes.limit, NO_ZONE, np.int8)
        self.boot_ram = np.zeros(sizes.limit, bool)
        self.boot_blocks = {}
        self.added = []
        self.online_blocks = set()
        #: Withdrawn pages whose block is offline, and how many the kernel counts for ever.
        self.left_poisoned = set()
        self.forgotten = 0

    # --- counting --------------------------------------------------------------------------

    def of_kind(self, *kinds):
        return set(np.flatnonzero(np.isin(self.kind, kinds)).tolist())

    def of_zone(self, key, *kinds):
        """Return the zone's page frames of these kinds, ascending."""
        mine = self.zone == self.keys.index(key)
        return np.flatnonzero(mine & np.isin(self.kind, kinds)).tolist()

    def present(self, key):
        return len(self.of_zone(key, *PRESENT))

    def managed(self, key):
        return len(self.of_zone(key, FREE, *USED))

    def free(self, key):
        return len(self.of_zone(key, FREE))

    def total(self):
        return len(self.of_kind(FREE, *USED))

    def nr_memmap_pages(self):
        """Count vmemmap pages of added sections, rounded up for each section."""
        size = self.sizes
        per_section = -(-size.section * size.struct_page_bytes // size.page_bytes)
        return sum(
            per_section for add in self.added for _ in range(add.start, add.end, size.section)
        )

    def existing_blocks(self):
        blocks = set(self.boot_blocks)
        for add in self.added:
            blocks |= set(range(add.start // self.sizes.block, add.end // self.sizes.block))
        return blocks

    # --- boot ------------------------------------------------------------------------------

    def boot(self, key, start, end, *, holes=(), reserved=(), movable=()):
        """Give a zone its boot memory: every page frame of [start, end) is linked to it."""
        for pfn in range(start, end):
            kind = FREE
            for found, pfns in ((HOLE, holes), (RESERVED, reserved), (MOVABLE, movable)):
                kind = found if pfn in pfns and kind == FREE else kind
            self.kind[pfn], self.zone[pfn] = kind, self.keys.index(key)
            self.boot_ram[pfn] = kind != HOLE
            block = pfn // self.sizes.block
            self.boot_blocks[block] = key[0]
            self.online_blocks.add(block)
        there = self.of_zone(key, *PRESENT)
        self.spans[key] = (there[0], there[-1] + 1)

    # --- add and remove --------------------------------------------------------------------

    def add(self, start, end, node, *, asks, chosen=()):
        """Add a range; *chosen* are the page frames of existing memory that hold its memmap."""
        size = self.sizes
        if end > size.limit:
            return "E2BIG"
        if self.boot_ram[start:end].any() or any(
            start < add.end and add.start < end for add in self.added
        ):
            return "EEXIST"
        if start == end or start % size.block or end % size.block:
            return "EINVAL"
        if node >= self.nr_nodes:
            return "EINVAL"
        memmap = self.memmap_of_block() if asks else 0
        if self.one_block_only and end - start != size.block:
            memmap = 0
        if self.one_block_only and asks and not memmap:
            return "EINVAL"
        add = Added(start, end, node, memmap)
        if not memmap:
            needed = -(-(end - start) * size.struct_page_bytes // size.page_bytes)
            add.host_pages = self.allocate(node, needed, list(chosen))
        self.added.append(add)
        if self.auto_online != "offline":
            for block in range(start // size.block, end // size.block):
                if self.online(block, self.auto_online) != "ok":
                    break
        return "ok"

    def memmap_of_block(self):
        """Return the pages at the start of a block that hold its memmap, 0 if unsupported."""
        size = self.sizes
        vmemmap_bytes = size.block * size.struct_page_bytes
        nr_pages, rest = divmod(vmemmap_bytes, size.page_bytes)
        if self.mode == "off" or rest or vmemmap_bytes % size.pmd_bytes:
            return 0
        if self.mode == "force" and not self.one_block_only:
            while nr_pages % size.pageblock:
                nr_pages += 1
        if nr_pages % size.pageblock or nr_pages == size.block:
            return 0
        return nr_pages

    def memmap_needs(self, start, end, *, asks):
        """Return the pages of existing memory that the memmap of an add would take."""
        one = self.one_block_only and end - start != self.sizes.block
        if asks and not one and self.memmap_of_block():
            return 0
        return -(-(end - start) * self.sizes.struct_page_bytes // self.sizes.page_bytes)

    def reserve_at_most(self, key):
        """Return a bound of what allocations leave in a zone: watermarks are not the twin's."""
        node, name = key
        above = self.zone_names[self.zone_names.index(name) + 1 :]
        protection = sum(self.managed((node, other)) for other in above) // 32
        return self.managed(key) // 4 + self.sizes.pageblock + protection

    def spare(self):
        """Return how many pages the kernel can surely allocate."""
        keys = [key for key in self.keys if key[1] != "Movable"]
        return sum(max(0, self.free(key) - self.reserve_at_most(key)) for key in keys)

    def allocate(self, node, nr_pages, chosen):
        """Take the chosen frames; they must be what the node's zonelist offers first."""
        assert len(set(chosen)) == nr_pages
        for other in sorted(range(self.nr_nodes), key=lambda n: (n != node, n)):
            for name in self.zone_names[-2::-1]:
                key = other, name
                free = set(self.of_zone(key, FREE))
                taken = free & set(chosen)
                nr_pages -= len(taken)
                assert not nr_pages or len(free - taken) <= self.reserve_at_most(key), key
        assert nr_pages == 0
        self.kind[chosen] = UNMOVABLE
        return chosen

    def remove(self, add):
        blocks = range(add.start // self.sizes.block, add.end // self.sizes.block)
        if any(block in self.online_blocks for block in blocks):
            return "EBUSY"
        self.kind[add.host_pages] = FREE
        self.left_poisoned -= set(range(add.start, add.end))
        self.added.remove(add)
        return "ok"

    # --- online ----------------------------------------------------------------------------

    def added_of(self, block):
        start = block * self.sizes.block
        return next((add for add in self.added if add.start <= start < add.end), None)

    def node_of(self, block):
        add = self.added_of(block)
        return add.node if add else self.boot_blocks[block]

    def intersects(self, zone, start, end):
        low, high = self.spans[zone]
        return low < end and start < high

    def zone_for(self, block, how):
        start = block * self.sizes.block
        end = start + self.sizes.block
        node = self.node_of(block)
        movable = (node, "Movable")
        normal = self.zone_names[-2]
        kernel = (node, normal)
        for name in self.zone_names[:-2]:
            if self.intersects((node, name), start, end):
                kernel = (node, name)
                break
        if how == "online_kernel":
            return kernel
        if how == "online_movable":
            return movable
        hit = [zone for zone in (kernel, movable) if self.intersects(zone, start, end)]
        if len(hit) == 1:
            return hit[0]
        return movable if self.movable_node else kernel

    def online(self, block, how):
        if block in self.online_blocks:
            return "EINVAL"
        start = block * self.sizes.block
        end = start + self.sizes.block
        poisoned = self.left_poisoned & set(range(start, end))
        if poisoned and not self.one_block_only:
            return "EHWPOISON"
        self.left_poisoned -= poisoned
        self.forgotten += len(poisoned)
        zone = self.zone_for(block, how)
        was_empty = not self.present(zone)
        add = self.added_of(block)
        memmap = add.memmap_per_block if add else 0
        self.zone[start:end] = self.keys.index(zone)
        self.kind[start:end] = FREE
        self.kind[start : start + memmap] = MEMMAP
        low, high = self.spans[zone]
        self.spans[zone] = (min(low, start), max(high, end)) if high > low else (start, end)
        self.online_blocks.add(block)
        if was_empty and zone[1] == self.zone_names[-2] and zone[0] in self.cpu_nodes:
            self.use_first_chunk(zone)
        return "ok"

    def use_first_chunk(self, zone):
        free = self.of_zone(zone, FREE)
        chunk, there = 1 << self.sizes.max_order, set(free)
        for pfn in free:
            if pfn % chunk == 0 and there.issuperset(range(pfn, pfn + chunk)):
                self.kind[pfn] = UNMOVABLE
                return
        self.kind[free[:1]] = UNMOVABLE

    # --- offline ---------------------------------------------------------------------------

    def offline(self, block, chosen=(), huge=(), fails=False):
        """Offline a block.

        Parameters
        ----------
        chosen : iterable of int
            The frames that its movable pages went to.
        huge : iterable of int
            The frames that its huge pages in use went to.
        fails : bool
            The kernel found too little room for huge pages, which only its watermarks tell.
        """
        if block not in self.online_blocks:
            return "EINVAL"
        start = block * self.sizes.block
        end = start + self.sizes.block
        kinds = self.kind[start:end].tolist()
        zones = {self.keys[index] for index in self.zone[start:end].tolist() if index != NO_ZONE}
        if len(zones) != 1 or HOLE in kinds or NOTHING in kinds:
            return "EINVAL"
        if UNMOVABLE in kinds or RESERVED in kinds:
            return "EBUSY"
        (zone,) = zones
        if self.rotates(zone, kinds):
            return "EINTR"
        targets = self.migration_targets(zone, start, end)
        if len(targets) < kinds.count(MOVABLE):
            return "EINTR"
        assert len(chosen) == kinds.count(MOVABLE)
        assert set(chosen) <= targets, (zone, sorted(set(chosen) - targets))
        self.kind[start:end][self.kind[start:end] == MOVABLE] = FREE
        self.kind[list(chosen)] = MOVABLE
        if kinds.count(HUGE_USED):
            if fails:
                self.check_no_room(zone, start, end)
                return "EINTR"
            self.move_huge(zone, start, end, huge)
        if PINNED in kinds:
            return "EINTR"
        self.left_poisoned |= {start + at for at, kind in enumerate(kinds) if kind == POISONED}
        self.kind[start:end] = NOTHING
        self.zone[start:end] = NO_ZONE
        self.online_blocks.discard(block)
        add = self.added_of(block)
        memmap = add.memmap_per_block if add else 0
        self.shrink(zone, start + memmap, end)
        if memmap:
            self.shrink(zone, start, start + memmap)
        return "ok"

    def rotates(self, zone, kinds):
        """Tell whether 6.1 moves huge pages around inside the block for ever."""
        others = any(self.present(key) for key in self.keys if key[0] != zone[0])
        return self.one_block_only and not others and HUGE in kinds and HUGE_USED in kinds

    def huge_targets(self, zone, start, end):
        """Return free huge pages and free chunks where huge pages in use of the zone may go."""
        others = {key[0] for key in self.keys if key[0] != zone[0] and self.present(key)} or {
            zone[0]
        }
        pooled, fresh = set(), set()
        for at in range(0, self.sizes.limit, CHUNK):
            if start <= at < end or self.kind[at] not in (FREE, HUGE):
                continue
            node = self.keys[self.zone[at]][0]
            chunk = self.kind[at : at + CHUNK]
            if node in others and (chunk == chunk[0]).all():
                (pooled if chunk[0] == HUGE else fresh).add(at)
        return pooled, fresh

    def move_huge(self, zone, start, end, huge):
        """Move huge pages in use: to free ones of the pool first, then to new ones."""
        old = [at for at in range(start, end, CHUNK) if self.kind[at] == HUGE_USED]
        new = sorted(pfn for pfn in huge if pfn % CHUNK == 0)
        pooled, fresh = self.huge_targets(zone, start, end)
        assert len(new) == len(old)
        assert set(huge) == {at + i for at in new for i in range(CHUNK)}
        assert set(new) <= pooled | fresh
        assert len(pooled & set(new)) == min(len(pooled), len(old))
        for at in old:
            self.kind[at : at + CHUNK] = FREE
        self.kind[list(huge)] = HUGE_USED

    def check_no_room(self, zone, start, end):
        """Check that huge pages in use can have found no place for the watermarks alone."""
        needed = int((self.kind[start:end] == HUGE_USED).sum()) // CHUNK
        pooled, fresh = self.huge_targets(zone, start, end)
        reserves = sum(self.reserve_at_most(key) for key in self.keys if self.present(key))
        assert len(pooled) + len(fresh) - reserves // CHUNK - len(self.keys) < needed

    # --- huge pages, pinned and withdrawn pages ---------------------------------------------

    def grow_pool(self, node, chosen):
        """Make free huge pages of a node's free chunks."""
        for pfn in chosen:
            assert self.kind[pfn] == FREE
            assert self.keys[self.zone[pfn]][0] == node
            assert pfn - pfn % CHUNK in chosen
        left = set(self.of_zone((node, "Movable"), FREE)) - set(chosen)
        whole = [p for p in left if p % CHUNK == 0 and left.issuperset(range(p, p + CHUNK))]
        if any(self.keys[self.zone[pfn]][1] != "Movable" for pfn in chosen):
            assert len(whole) * CHUNK <= self.reserve_at_most((node, "Movable")) + CHUNK
        self.kind[list(chosen)] = HUGE

    def use_huge(self, chosen):
        """Let a file hold free huge pages."""
        assert all(self.kind[pfn] == HUGE for pfn in chosen)
        self.kind[list(chosen)] = HUGE_USED

    def poison(self, pfn, target=None):
        """Withdraw a page; *target* is where what it held went."""
        block = pfn // self.sizes.block
        if block not in self.existing_blocks():
            return "ENXIO"
        if block not in self.online_blocks:
            return "EIO"
        kind = self.kind[pfn]
        if kind == POISONED:
            return "ok"
        if kind == PINNED:
            return "EBUSY"
        if kind in (HOLE, NOTHING, RESERVED, UNMOVABLE, MEMMAP):
            return "EIO"
        if kind == MOVABLE:
            assert self.kind[target] == FREE
            self.kind[target] = MOVABLE
        if kind == HUGE:
            at = pfn - pfn % CHUNK
            self.kind[at : at + CHUNK] = FREE
        self.kind[pfn] = POISONED
        return "ok"

    def migration_targets(self, zone, start, end):
        """Return where movable pages may go: to other nodes that have memory, if there are any."""
        others = {key[0] for key in self.keys if key[0] != zone[0] and self.present(key)} or {
            zone[0]
        }
        targets = set()
        for key in self.keys:
            if key[0] in others and (key[1] != "Movable" or zone[1] == "Movable"):
                targets |= set(self.of_zone(key, FREE))
        return targets - set(range(start, end))

    def shrink(self, zone, start, end):
        """Recompute a zone's span as its kernel function does: by steps of a subsection."""
        low, high = self.spans[zone]
        step = self.sizes.subsection
        if low == start:
            found = [p for p in range(end, high, step) if self.is_online_in(p, zone)]
            self.spans[zone] = (found[0], high) if found else (0, 0)
        elif high == end:
            found = [p for p in range(start - 1, low - 1, -step) if self.is_online_in(p, zone)]
            self.spans[zone] = (low, found[0] + 1) if found else (0, 0)

    def is_online_in(self, pfn, zone):
        return self.zone[pfn] == self.keys.index(zone)
