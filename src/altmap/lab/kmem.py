"""dax devices of a guest: made of persistent memory, bound to kmem, and unbound.

As ``ndctl create-namespace -m devdax`` and ``daxctl reconfigure-device`` do it, by sysfs alone.
Source: ``drivers/nvdimm/dax_devs.c``, ``drivers/dax/bus.c: do_id_store``, ``drivers/dax/kmem.c``.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.insmod import load_module
from altmap.lab.pmem import METADATA_BYTES
from altmap.lab.state import LONG_SECONDS, must_read, must_write, write_file
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("PMEM_MODULES", "DaxDevices", "make_dax_devices")

#: What makes dax devices of persistent memory: a machine has one of the first two; kmem comes last.
PMEM_MODULES = ("nd_e820", "of_pmem", "dax_pmem", "kmem")
_ND, _DAX = "/sys/bus/nd", "/sys/bus/dax"
_KMEM = f"{_DAX}/drivers/kmem"
#: Any name will do for a namespace whose content is lost with the guest.
_UUID = "11111111-2222-3333-4444-555555555555"


def make_dax_devices(guest: Guest) -> dict[str, str]:
    """Make a dax device, without a driver, of each range of the guest's persistent memory.

    Returns
    -------
    dict of str to str
        The kernel's name of each device, such as ``dax0.0``, by the name of its range.

    Raises
    ------
    LabError
        If the guest's kernel lacks a module, or refuses a range.
    """
    ranges = guest.hardware.pmem
    if not ranges:
        return {}
    for module in PMEM_MODULES[:-1]:
        load_module(guest, module)
    if guest.run(f"test -d {_ND}/drivers/dax_pmem").status:
        raise LabError(
            f"this kernel makes no dax device of persistent memory on {guest.hardware.arch} "
            "(CONFIG_NVDIMM_DAX, CONFIG_DEV_DAX_PMEM)"
        )
    made = {}
    for each in ranges:
        space = _namespace_at(guest, each.address)
        region = space.removeprefix("namespace").partition(".")[0]
        seed = must_read(guest, f"{_ND}/devices/region{region}/dax_seed")
        aligns = must_read(guest, f"{_ND}/devices/{seed}/supported_alignments")
        for name, word in (
            ("uuid", _UUID),
            ("mode", "ram"),
            ("align", aligns.split()[0]),
            ("namespace", space),
        ):
            must_write(guest, f"{_ND}/devices/{seed}/{name}", word)
        must_write(guest, f"{_ND}/drivers/dax_pmem/bind", seed)
        start = int(must_read(guest, f"{_DAX}/devices/{seed}/resource"), 16)
        if start != each.address + METADATA_BYTES:
            raise LabError(f"{seed}: begins at {start:#x}, not behind {METADATA_BYTES:#x} bytes")
        made[each.name] = seed
    return made


class DaxDevices:
    """The dax devices of a guest, by the ids that a scenario gives them.

    Parameters
    ----------
    guest : Guest
    names : mapping of str to str
        The kernel's name of each.
    """

    def __init__(self, guest: Guest, names: Mapping[str, str]) -> None:
        self._guest = guest
        self._names = names

    def plug(self, step: Plug) -> Outcome:
        """Set a device's ``memmap_on_memory`` and bind it to kmem, which adds its memory.

        A device that kmem has already, with its memory removed by its file ``state``, is bound
        anew.

        Raises
        ------
        LabError
            If the guest dies, does not answer, or has no module ``kmem``.
        """
        name = self._names[step.id]
        load_module(self._guest, "kmem")
        if self._is_bound(name):
            must_write(self._guest, f"{_KMEM}/unbind", name)
        if step.memmap_on_memory is not None:
            outcome = self._write(name, "memmap_on_memory", str(int(step.memmap_on_memory)))
            if not outcome:
                return outcome
        # CXL memory is for kmem; of other devices it is told, and takes those that it was told of.
        if not self._guest.hardware.cxl:
            must_write(self._guest, f"{_KMEM}/new_id", name)
            if self._is_bound(name):
                return OK
        # The write to new_id succeeds in any case; the driver's errno is that of this one.
        return self._write_to(f"{_KMEM}/bind", name)

    def unplug(self, id_: str) -> Outcome:
        """Take a device back from kmem: by its file ``state`` where it has one, then by unbinding.

        An unbinding succeeds also where memory stays; the caller looks at the memory blocks.
        """
        name = self._names[id_]
        if self._exists(f"{_DAX}/devices/{name}/state"):
            outcome = self._write(name, "state", "unplugged")
            if not outcome:
                return outcome
        return self._write_to(f"{_KMEM}/unbind", name)

    def write_state(self, id_: str, word: str) -> Outcome:
        """Write a word to the file ``state`` of a device."""
        name = self._names.get(id_)
        if name is None:
            return Outcome.refused(errno.ENOENT, "", f"{id_}: there is no such device")
        return self._write(name, "state", word)

    def _write(self, name: str, file: str, word: str) -> Outcome:
        path = f"{_DAX}/devices/{name}/{file}"
        # A shell opens with O_CREAT, for which sysfs has another errno.
        if not self._exists(path):
            return Outcome.refused(errno.ENOENT, "", path)
        return self._write_to(path, word)

    def _write_to(self, path: str, word: str) -> Outcome:
        number = write_file(self._guest, path, word, LONG_SECONDS)
        return Outcome.refused(number, "", path) if number else OK

    def _is_bound(self, name: str) -> bool:
        return self._exists(f"{_KMEM}/{name}")

    def _exists(self, path: str) -> bool:
        return self._guest.run(f"test -e {path}").status == 0


def _namespace_at(guest: Guest, address: int) -> str:
    found = guest.run(f"grep -l '^{address:#x}$' {_ND}/devices/namespace*/resource").text.split()
    if len(found) != 1:
        raise LabError(f"persistent memory at {address:#x}: the kernel has no namespace there")
    return found[0].split("/")[-2]
