"""The devices of a guest: plugged, resized and given back, each by its driver's own way."""

from __future__ import annotations

import re

from altmap.errors import InputError, one_of
from altmap.lab.added import plug_by_probe
from altmap.lab.balloon import Rest, set_balloon_target
from altmap.lab.blocks import GuestBlocks
from altmap.lab.dimm import OST_EJECT_IN_PROGRESS, plug_dimm, unplug_dimm
from altmap.lab.dlpar import plug_by_dlpar, unplug_by_dlpar
from altmap.lab.guest import Guest
from altmap.lab.hyperv import LabHyperv
from altmap.lab.kmem import DaxDevices
from altmap.lab.qmp import QemuRefusedError
from altmap.lab.virtio_mem import VirtioMemState, plug_virtio_mem, resize_virtio_mem
from altmap.scenario import Plug, Resize, Unplug
from altmap.trace import OK, Outcome

__all__ = ("BALLOON", "GuestDevices")

#: The id of the balloon that a Xen domain has.
BALLOON = "balloon"
#: What the kernel logs when an add is refused, and the errno that it stands for.
_ADD_REFUSALS = (
    (re.compile(r"unaligned hotplug range"), "EINVAL", "check_hotplug_memory_range"),
    (re.compile(r"cannot be added"), "EEXIST", "register_memory_resource"),
    (re.compile(r"exceeds"), "E2BIG", "mhp_range_allowed"),
    (re.compile(r"allocation failure|vmemmap alloc failure"), "ENOMEM", "vmemmap_populate"),
)
#: ``_OST`` status of a refused eject, and the errno that it stands for (``acpi_device_hotplug``).
_EJECT_REFUSALS = {0x80: "EPERM", 0x82: "EBUSY"}


class GuestDevices:
    """The memory devices of a guest, by the ids that a scenario gives them.

    Parameters
    ----------
    guest : Guest
    blocks : GuestBlocks
        Its memory blocks.
    hyperv : LabHyperv or None
        The Hyper-V host of a guest that has one.
    dax : DaxDevices
    """

    def __init__(
        self, guest: Guest, blocks: GuestBlocks, hyperv: LabHyperv | None, dax: DaxDevices
    ) -> None:
        self._guest = guest
        self._memory_blocks = blocks
        self._hyperv = hyperv
        self._dax = dax
        self._of_kmem = dict[str, tuple[int, int]]()
        self._dimms = guest.hardware.guest.dimm
        self._has_balloon = guest.hypervisor is not None
        self._virtio_mem: set[str] = set()
        self._devices = {
            dimm.name: (dimm.address, dimm.size_bytes) for dimm in guest.hardware.dimms
        }
        if guest.hardware.written:
            self._find_written()

    def _find_written(self) -> None:
        """Take over the devices that the guest was started with."""
        for found in self._guest.qmp.execute("query-memory-devices"):
            data = found["data"]
            sized = found["type"] == "virtio-mem"
            start, size = ("memaddr", "max-size") if sized else ("addr", "size")
            self._devices[data["id"]] = (int(data[start]), int(data[size]))
            if sized:
                self._virtio_mem.add(data["id"])

    @property
    def has_virtio_mem(self) -> bool:
        """Whether a device has a driver that goes on by itself after a request."""
        return bool(self._virtio_mem)

    def plug(self, step: Plug) -> Outcome:
        """Plug a device.

        Raises
        ------
        InputError
            If QEMU refuses it, the id is taken, or no lab runs the driver.
        LabError
            If the guest dies or does not answer.
        """
        if step.id in self._devices:
            raise InputError(f"plug {step.id!r}: a device of that id is plugged already")
        match step.driver:
            case "dimm":
                return self._plug_dimm(step)
            case "virtio-mem":
                return self._plug_virtio_mem(step)
            case "hyperv":
                return self._plug_hyperv(step)
            case "probe":
                return self._plug_probe(step)
            case "kmem":
                return self._plug_kmem(step)
        raise InputError(f"driver {step.driver!r}: no lab runs it")

    def answers_late(self, step: Plug) -> bool:
        """Tell whether only the kernel's files and log say how a plug ended.

        ACPI answers success in any case.
        """
        return step.driver == "dimm" and self._dimms == "acpi"

    def late_outcome(self, step: Plug, log: list[str]) -> Outcome:
        """Return how such a plug ended, from the *log* of the kernel."""
        if self._memory_blocks.exists(self._devices[step.id][0] // self._memory_blocks.size_bytes):
            return OK
        for line in log:
            for pattern, name, function in _ADD_REFUSALS:
                if pattern.search(line):
                    return Outcome.refused(name, function, line)
        return Outcome.refused("?", "", log[-1] if log else "no memory block appeared")

    def resize(self, step: Resize) -> Outcome:
        """Let a device or a balloon have another size.

        Raises
        ------
        InputError
            If there is no such device, or it cannot be resized.
        LabError
            If the guest dies or does not answer.
        """
        if self._hyperv is not None:
            return self._hyperv.resize(step.id, int(step.size))
        if self._has_balloon and step.id == BALLOON:
            return _outcome_of(set_balloon_target(self._guest, int(step.size)))
        self.range_of(step.id)
        if step.id not in self._virtio_mem:
            raise InputError(f"resize {step.id!r}: a DIMM keeps its size")
        try:
            return _reached(resize_virtio_mem(self._guest, step.id, int(step.size)))
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error

    def unplug(self, step: Unplug) -> Outcome:
        """Ask a DIMM or a dax device back.

        Raises
        ------
        InputError
            If there is no such device, or QEMU refuses it.
        LabError
            If the guest dies or does not answer.
        """
        self.range_of(step.id)
        if step.id in self._of_kmem:
            return self._unplug_kmem(step.id)
        try:
            outcome = self._ask_back(step.id)
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error
        if outcome:
            del self._devices[step.id]
        return outcome

    def write_dax_state(self, id_: str, word: str) -> Outcome:
        """Write a word to the file ``state`` of a dax device, by its id."""
        outcome = self._dax.write_state(id_, word)
        if outcome and word == "unplugged":
            self._devices.pop(id_, None)
        elif outcome:
            self._devices[id_] = self._of_kmem[id_]
        return outcome

    def blocks_of(self, id_: str) -> list[int]:
        """Return the memory blocks of a device, in order of addresses: those that were added.

        Where nothing was added they are the blocks that it would have, unless only parts of the
        device's range become memory blocks.

        Raises
        ------
        InputError
            If there is no such device, or a balloon has none now.
        """
        if self._has_balloon and id_ == BALLOON:
            added = self._memory_blocks.added()
            if not added:
                raise InputError(f"device {BALLOON!r}: has no memory blocks now")
            return list(range(min(added), max(added) + 1))
        address, size = self.range_of(id_)
        block = self._memory_blocks.size_bytes
        ids = range(address // block, -(-(address + size) // block))
        if self._hyperv is None and id_ not in self._virtio_mem:
            return list(ids)  # a DIMM is added whole, or not at all
        existing = self._memory_blocks.ids()
        there = [number for number in ids if number in existing]
        return there if there or id_ in self._virtio_mem else list(ids)

    def _ask_back(self, dimm: str) -> Outcome:
        if self._dimms == "dlpar":
            failure = unplug_by_dlpar(self._guest, dimm)
            return Outcome.refused("EINVAL", "dlpar_memory", failure) if failure else OK
        result = unplug_dimm(self._guest, dimm)
        if result.removed:
            return OK
        if result.ost_status == OST_EJECT_IN_PROGRESS:
            why = "nothing followed _OST status 0x84 (eject in progress) within the time limit"
            return Outcome("does_not_end", why=why)
        name = _EJECT_REFUSALS.get(result.ost_status, "EBUSY")
        return Outcome.refused(name, "", f"_OST status {result.ost_status:#x}")

    def range_of(self, id_: str) -> tuple[int, int]:
        """Return address and size of a device.

        Raises
        ------
        InputError
            If there is none of that id.
        """
        if id_ not in self._devices:
            raise InputError(
                f"device {id_!r}: no such device, "
                f"{one_of(id_, self._devices) if self._devices else 'none is plugged'}"
            )
        return self._devices[id_]

    def _plug_dimm(self, step: Plug) -> Outcome:
        address = None if step.address is None else int(step.address)
        if step.more_ranges:
            raise InputError(f"plug {step.id!r}: QEMU's DIMMs have one range, no more_ranges")
        failure = ""
        try:
            if self._dimms == "dlpar":
                at, failure = plug_by_dlpar(
                    self._guest, step.id, int(step.size), address, step.node
                )
            else:
                at = plug_dimm(self._guest, step.id, int(step.size), address, step.node).address
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error
        self._devices[step.id] = (at, int(step.size))
        return Outcome.refused("EINVAL", "dlpar_memory", failure) if failure else OK

    def _plug_virtio_mem(self, step: Plug) -> Outcome:
        try:
            state = plug_virtio_mem(
                self._guest,
                step.id,
                int(step.size),
                int(step.requested or 0),
                block_bytes=None if step.block is None else int(step.block),
                address=None if step.address is None else int(step.address),
                node=step.node,
            )
        except QemuRefusedError as error:
            raise InputError(str(error.args[0])) from error
        self._devices[step.id] = (state.address, state.size_bytes)
        self._virtio_mem.add(step.id)
        return _reached(state)

    def _plug_hyperv(self, step: Plug) -> Outcome:
        assert self._hyperv is not None
        assert step.address is not None  # checked with the scenario
        outcome = self._hyperv.plug(step)
        self._devices[step.id] = (int(step.address), int(step.size))
        return outcome

    def _plug_probe(self, step: Plug) -> Outcome:
        assert step.address is not None  # checked with the scenario
        if step.size > self._memory_blocks.size_bytes:
            raise InputError(
                f"plug {step.id!r}: size {step.size:#x}: a write adds one memory block, "
                f"{self._memory_blocks.size_bytes:#x} bytes"
            )
        outcome = plug_by_probe(
            self._guest,
            step,
            self._memory_blocks.size_bytes,
            is_backed=self._memory_blocks.exists(
                int(step.address) // self._memory_blocks.size_bytes
            ),
        )
        if outcome.errno != "EEXIST":
            self._devices[step.id] = (int(step.address), int(step.size))
        return outcome

    def _plug_kmem(self, step: Plug) -> Outcome:
        assert step.address is not None  # checked before the boot
        block = self._memory_blocks.size_bytes
        start = -(-step.address // block) * block
        end = (step.address + step.size) // block * block
        self._devices[step.id] = self._of_kmem[step.id] = (start, max(0, end - start))
        return self._dax.plug(step)

    def _unplug_kmem(self, id_: str) -> Outcome:
        blocks = self.blocks_of(id_)
        outcome = self._dax.unplug(id_)
        if any(map(self._memory_blocks.exists, blocks)):
            why = f"memory of {id_} stays, and no driver has it"
            return Outcome.refused("EBUSY", "", why) if outcome else outcome
        if outcome or outcome.errno == "ENODEV":  # kmem never had it
            del self._devices[id_]
        return outcome


def _reached(state: VirtioMemState) -> Outcome:
    """Tell whether the guest did as it was asked; it says nowhere why it did not."""
    if state.plugged_bytes == state.requested_bytes:
        return OK
    why = f"plugged {state.plugged_bytes:#x} of {state.requested_bytes:#x} bytes requested"
    return Outcome.refused("?", "", why)


def _outcome_of(rest: Rest) -> Outcome:
    """Tell how a balloon's request ended, as far as its driver's files say it."""
    if rest.reached:
        return OK
    name = "ECANCELED" if rest.retried else "EAGAIN"
    return Outcome.refused(name, "", f"at rest at {rest.current_kb} kB of {rest.target_kb} kB")
