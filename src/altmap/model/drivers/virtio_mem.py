"""virtio-mem: a region whose blocks the guest plugs and unplugs at the host's request.

The host's half is :mod:`altmap.model.drivers.virtio_mem_device`, the guest's
:mod:`altmap.model.drivers.virtio_mem_guest`; they exchange the messages of
:mod:`altmap.model.drivers.virtio_mem_wire`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from altmap.errors import InputError
from altmap.model.drivers.driver import Driver, MemoryDevice
from altmap.model.drivers.virtio_mem_bbm import BigBlockMode
from altmap.model.drivers.virtio_mem_device import (
    DEFAULT_BLOCK_BYTES,
    VirtioMemDevice,
    check_device,
)
from altmap.model.drivers.virtio_mem_guest import WORKER, Mode, VirtioMemGuest
from altmap.model.drivers.virtio_mem_sbm import SubBlockMode
from altmap.model.drivers.virtio_mem_wire import Config
from altmap.model.kernel.endless import what_it_waits_for
from altmap.model.kernel.offline import go_on_offlining
from altmap.model.kernel.page_offline import mark_never_onlined
from altmap.model.kernel.registration import (
    memory_group_register_dynamic,
    request_mem_region,
    set_online_page_callback,
)
from altmap.model.platform.qemu import dimm_space, place_dimm
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Device, Plug
from altmap.trace import HOST_TO_GUEST, OK, Outcome
from altmap.units import format_size

__all__ = ("VirtioMem", "chosen_mode", "probe")


@dataclass(slots=True)
class VirtioMem(Driver):
    """QEMU's virtio-mem devices, and the driver's instances of them.

    Attributes
    ----------
    hosts : dict of str to VirtioMemDevice
        The devices by id.
    guests : dict of str to VirtioMemGuest
        Devices that the driver has probed.
    """

    hosts: dict[str, VirtioMemDevice] = field(default_factory=dict)
    guests: dict[str, VirtioMemGuest] = field(default_factory=dict)
    _tried: tuple[int, ...] = ()

    def plug(self, plug: Plug) -> Outcome:
        """Plug the device; the driver probes it and plugs the size that it requests."""
        devices, kernel = self.devices, self.kernel
        devices.check_new(plug.id)
        if kernel.arch.family not in kernel.release.virtio_mem:
            raise InputError(
                f"plug {plug.id!r}: Linux {kernel.release.name} has no virtio-mem on "
                f"{kernel.arch.family}"
            )
        block = DEFAULT_BLOCK_BYTES if plug.block is None else plug.block
        requested = 0 if plug.requested is None else plug.requested
        check_device(f"plug {plug.id!r}", plug.size, block, requested)
        space = dimm_space(kernel.arch.board, kernel.boot_end_address).aligned(block)
        address = place_dimm(space, devices.addresses(), plug.size, plug.address)
        node = plug.node or 0
        if not kernel.node_zones(node):
            raise InputError(f"plug {plug.id!r}: node {node} does not exist on this machine")
        pfns = devices.pfns(address, plug.size)
        devices.by_id[plug.id] = MemoryDevice("virtio-mem", pfns, sparse=True)
        host = self.hosts[plug.id] = self._host(plug.id, block, node, address, plug.size)
        host.request_size(requested)
        outcome = self._probe(host)
        return self._reached(host) if outcome else outcome

    def unplug(self, id_: str) -> Outcome:
        """Refuse: QEMU 7.2 takes no virtio-mem device out (``virtio_md_pci_unplug_request``)."""
        raise InputError(
            f"unplug {id_!r}: QEMU cannot unplug a virtio-mem device, resize it to 0 instead"
        )

    def resize(self, id_: str, size_bytes: int) -> Outcome:
        """Set a device's requested size, and run the driver."""
        host = self.hosts[id_]
        host.request_size(size_bytes)
        if id_ in self.guests:
            guest = self.guests[id_]
            guest.config_changed = guest.queued = True
            self.work()
        return self._reached(host)

    def sizes(self, id_: str) -> tuple[int, int]:
        """Return the size that is requested of a device, and that of its region."""
        host = self.hosts[id_]
        return host.requested_bytes, host.size_bytes

    def work(self) -> None:
        """Let every driver instance do the work that is queued."""
        for guest in self.guests.values():
            if guest.active and not self._goes_on():
                continue
            guest.queued |= guest.active
            guest.run()
            self._tried = what_it_waits_for(self.kernel) if guest.active else ()

    def _goes_on(self) -> bool:
        """Let a worker whose offlining did not end try again; tell whether it ends now."""
        if self._tried == what_it_waits_for(self.kernel):
            return False
        self._tried = what_it_waits_for(self.kernel)
        return go_on_offlining(self.kernel, WORKER).ends

    def take_region(self, given: Device) -> None:
        """Take over a device that was plugged before the start, with its plugged memory.

        Raises
        ------
        InputError
            If QEMU could not have reached that state.
        """
        kernel, devices = self.kernel, self.devices
        where = f"machine.devices {given.id!r}"
        block = DEFAULT_BLOCK_BYTES if given.block is None else given.block
        requested = given.requested or 0
        check_device(where, given.size, block, requested)
        if given.address % block:
            raise InputError(
                f"{where}: address {given.address:#x}: need a multiple of the block {block:#x}"
            )
        region = devices.pfns(given.address, given.size)
        devices.by_id[given.id] = MemoryDevice("virtio-mem", region, sparse=True)
        host = self._host(given.id, block, given.node, given.address, given.size)
        self.hosts[given.id] = host
        host.request_size(requested)
        added = kernel.pages_of(kernel.added_blocks & kernel.blocks(region))
        host.plugged = (added & region) - kernel.fake_offline
        if host.plugged_bytes % block:
            raise InputError(
                f"{where}: {host.plugged_bytes:#x} bytes of it are plugged, "
                f"which is no multiple of the block {block:#x}"
            )
        if host.plugged:
            end = (host.plugged.max() + 1) * kernel.arch.page_size_bytes - given.address
            host.usable_bytes = max(host.usable_bytes, -(-end // block) * block)
        self._register(host, probe(self, host)).take_over(host.plugged)

    # --- the driver as a module ------------------------------------------------------------

    def online_pages(self, pages: PfnSet) -> PfnSet:
        """Return those of the pages that are freed (``virtio_mem_online_page_cb``)."""
        kept = PfnSet()
        for guest in self.guests.values():
            kept |= guest.mode.kept_fake_offline(pages)
        mark_never_onlined(self.kernel, kept)
        return pages - kept

    def _host(
        self, id_: str, block: int, node: int, address: int, size_bytes: int
    ) -> VirtioMemDevice:
        arch = self.kernel.arch
        return VirtioMemDevice(
            id_,
            arch.board.virtio_mem_extent_bytes,
            arch.page_size_bytes,
            block,
            node,
            address,
            size_bytes,
            self._back,
        )

    def _back(self, pfns: PfnRange, backed: bool) -> None:
        if backed:
            self.devices.backing.backed |= pfns
        else:
            self.devices.backing.backed -= pfns

    def _probe(self, host: VirtioMemDevice) -> Outcome:
        """Probe a device (``virtio_mem_probe``); the first one registers the online callback."""
        kernel = self.kernel
        if not self.guests and kernel.online_page_callback is not None:
            return Outcome.refused(
                "EINVAL", "set_online_page_callback", "another driver's callback is registered"
            )
        guest = self._register(host, probe(self, host))
        guest.unplug_all = bool(guest.config.plugged_size)
        guest.run()
        return OK

    def _register(self, host: VirtioMemDevice, guest: VirtioMemGuest) -> VirtioMemGuest:
        set_online_page_callback(self.kernel, self.online_pages)
        self.kernel.notifier.register(guest.memory_notifier_cb)
        self.guests[host.id] = guest
        return guest

    def _reached(self, host: VirtioMemDevice) -> Outcome:
        """Tell whether the size is as requested, and if not, why."""
        if host.plugged_bytes == host.requested_bytes:
            return OK
        guest = self.guests.get(host.id)
        sizes = (
            f"plugged {format_size(host.plugged_bytes)} of "
            f"{format_size(host.requested_bytes)} requested"
        )
        last = guest.last if guest else OK
        if not last.ends:
            return last
        if not last:
            return replace(last, why=f"{sizes}: {last.why}")
        return Outcome("refused", None, "virtio_mem_run_wq", f"{sizes}: {self._remainder(guest)}")

    def _remainder(self, guest: VirtioMemGuest | None) -> str:
        if guest is None:
            return "the driver has not probed the device"
        if not self.kernel.tunables.virtio_mem.unplug_online:
            return "the rest is online, and unplug_online is off"
        return f"the rest is less than one unit ({guest.mode.describe()})"


def probe(driver: VirtioMem, host: VirtioMemDevice) -> VirtioMemGuest:
    """Return a driver instance for a device: config read, mode chosen, region reserved.

    Source: ``virtio_mem_init``, ``virtio_mem_init_hotplug``.
    """
    kernel = driver.kernel
    name = f"virtio{len(driver.guests)}"
    raw = host.config()
    config = Config.decode(raw)
    guest = VirtioMemGuest(kernel, host, name, config)
    guest.mode = chosen_mode(guest)
    unit_nr_pages = guest.mode.unit_nr_pages
    guest.group = memory_group_register_dynamic(kernel, config.node_id, unit_nr_pages)
    request_mem_region(kernel, guest.pfns, name)
    kernel.log.note(
        "driver",
        f"{HOST_TO_GUEST}{name} config: region {config.addr:#x}+{config.region_size:#x}"
        ", device block "
        f"{format_size(config.block_size)}, node {config.node_id}",
        guest.pfns,
        "virtio_mem_init",
        raw,
    )
    guest.note(f"{guest.mode.name}, {guest.mode.describe()}", "virtio_mem_init_hotplug")
    return guest


def chosen_mode(guest: VirtioMemGuest) -> Mode:
    """Return Sub-Block Mode if a memory block holds at least two sub-blocks, else Big-Block Mode.

    Source: ``virtio_mem_init_hotplug``.
    """
    kernel, page = guest.kernel, guest.page_size_bytes
    parameters, block = kernel.tunables.virtio_mem, kernel.block_nr_pages
    device_block = guest.config.block_size // page
    least = kernel.arch.pageblock_nr_pages
    if kernel.release.virtio_mem_sub_block == "max_order":
        least = max(least, 1 << kernel.arch.max_page_order)
    sub = max(device_block, least)
    start = guest.config.addr // page
    if sub < block and not parameters.force_bbm:
        return SubBlockMode(guest, sub, -(-start // block))
    big = max(device_block, block)
    wanted = parameters.bbm_block_size_bytes
    if wanted:
        # An impossible size only makes the driver warn.
        whole = not wanted & (wanted - 1)
        if whole and wanted >= big * page:
            big = wanted // page
        else:
            problem = "is too small" if whole else "is not a power of 2"
            guest.note(f"bbm_block_size {problem}", "virtio_mem_init_hotplug")
    return BigBlockMode(guest, big, -(-start // big))
