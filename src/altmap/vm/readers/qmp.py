"""What QEMU answers to ``query-memory-devices``, with ``query-memory-size-summary`` if it is there.

qapi/machine.json: MemoryDeviceInfo, MemoryInfo.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from altmap.errors import InputError
from altmap.vm.definition import DefinedBalloon, DefinedDevice, Definition, DeviceKind
from altmap.vm.readers.arch import USUAL
from altmap.vm.readers.notes import Notes, at, bounded_parts, growth_of
from altmap.vm.readers.sizes import bounded, qemu_number, whole
from altmap.vm.readers.trees import number_in

__all__ = ("FORMAT", "memory_devices")

FORMAT = "QEMU query-memory-devices"
_KINDS: dict[str, DeviceKind] = {
    "dimm": "dimm",
    "nvdimm": "nvdimm",
    "virtio-mem": "virtio-mem",
    "virtio-pmem": "virtio-pmem",
    "sgx-epc": "other",
    "hv-balloon": "other",
}


def memory_devices(values: list[Any], name: str) -> Definition | None:
    """Return the definition that the answers give, ``None`` of another file.

    A list of devices does not say how much memory the machine started with: ``memory_bytes`` is 0
    then, and a note says so.
    """
    found = list(_answers(values))
    devices = [each for each in found if "base-memory" not in each]
    summaries = [each for each in found if "base-memory" in each]
    if not found:
        return None
    notes = Notes()
    made = tuple(
        _device(each, number, notes)
        for number, each in enumerate(bounded_parts("memory devices", devices))
    )
    memory_bytes = 0
    if summaries:
        given = summaries[-1]["base-memory"]
        memory_bytes = at("base-memory", None, lambda: bounded(whole(given), given))
    else:
        notes.leave("query-memory-devices", "gives no boot memory: add query-memory-size-summary")
    return Definition(
        format=FORMAT,
        name=name,
        manager="qemu",
        hypervisor="qemu",
        arch=USUAL,
        arch_given=False,
        memory_bytes=memory_bytes,
        devices=made,
        growth=growth_of(memory_bytes, None, None, made, DefinedBalloon()),
        unread=notes.unread,
    )


def _answers(values: list[Any]) -> Iterator[dict[str, Any]]:
    for value in values:
        answer = value.get("return") if isinstance(value, dict) and "return" in value else value
        for each in answer if isinstance(answer, list) else [answer]:
            if not isinstance(each, dict):
                continue
            if "base-memory" in each or (
                isinstance(each.get("data"), dict) and each.get("type") in _KINDS
            ):
                yield each


def _device(answer: dict[str, Any], number: int, notes: Notes) -> DefinedDevice:
    kind = _KINDS[answer["type"]]
    data = answer["data"]
    if kind == "other":
        notes.leave(str(answer["type"]), "is no memory device that altmap models")

    def size(key: str) -> int | None:
        given = number_in(data, key)
        return None if given is None else at(key, None, lambda: bounded(whole(given), given))

    def address(key: str) -> int | None:
        given = number_in(data, key)
        return None if given is None else at(key, None, lambda: qemu_number(given))

    mem = kind == "virtio-mem"
    size_bytes = size("max-size") if mem else size("size")
    if size_bytes is None:
        raise InputError(f"device {number}: need {'max-size' if mem else 'size'}")
    hotplugged = number_in(data, "hotplugged")
    name = number_in(data, "id")
    return DefinedDevice(
        kind=kind,
        size_bytes=size_bytes,
        name=name if isinstance(name, str) and name else f"{kind.replace('-', '')}{number}",
        node=address("node"),
        requested_bytes=size("requested-size") if mem else None,
        plugged_bytes=size("size") if mem else None,
        block_bytes=size("block-size") if mem else None,
        address=address("memaddr" if kind.startswith("virtio") else "addr"),
        hotplugged=hotplugged if isinstance(hotplugged, bool) else None,
    )
