"""The schema of scenarios: a machine, and the steps that are taken on it.

``docs/scenario.md`` is its reference for users. Every struct is frozen and is checked when it is
made, whether from TOML, by a call, or by its method ``replace``. A scenario that is
accepted can still ask for what a platform refuses (two devices at one address); running it shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import msgspec

from altmap.errors import InputError
from altmap.scenario import checks
from altmap.scenario.decoding import decode_field, missing_field, unknown_field
from altmap.scenario.fields import Address, FieldError, Size, field_kinds

if TYPE_CHECKING:
    from collections.abc import Sequence as Several
else:

    class Several:
        """A tuple of any length; to type checkers a sequence, as a call takes lists too."""

        def __class_getitem__(cls, element: Any) -> Any:
            return tuple[element, ...]


__all__ = (
    "AutoOnline",
    "Configure",
    "Device",
    "Dump",
    "Fill",
    "FillKind",
    "Free",
    "HugePages",
    "KernelConfig",
    "Machine",
    "Node",
    "Offline",
    "Online",
    "OnlineType",
    "Plug",
    "Poison",
    "Range",
    "Reboot",
    "Region",
    "Resize",
    "Scenario",
    "Selection",
    "SetTunables",
    "Step",
    "Unplug",
    "Veto",
    "VetoErrno",
    "VetoOn",
    "VirtioMemParameters",
    "Write",
)

OnlineType = Literal["online", "online_kernel", "online_movable"]
AutoOnline = Literal["offline", "online", "online_kernel", "online_movable"]
FillKind = Literal["file", "held", "pinned", "kernel", "hugetlb", "hugetlb-file"]
VetoOn = Literal["prepare_online", "going_online", "going_offline"]
_MemmapMode = Literal["off", "on", "force"]
_OnlinePolicy = Literal["contig-zones", "auto-movable"]
_QemuPlatform = Literal["pc", "q35", "xen", "virt", "pseries", "s390-ccw"]
_OtherPlatform = Literal["cloud-hypervisor", "firecracker", "vmware", "hyper-v", "xen-hvm"]
VetoErrno = Literal["EPERM", "EBUSY", "ENOMEM", "EINVAL", "EAGAIN", "none"]
_Blocks = int | str | Several[int | str] | None
_MISSING = re.compile(r"Missing required argument '(.*)'")


class _CheckedMeta(msgspec.StructMeta):
    """Decodes what Python code passes to a struct's call: text, integers, lists and tables."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:  # noqa: N805  # of a metaclass
        struct = cast("type[msgspec.Struct]", cls)
        kinds = field_kinds(struct)
        for name, value in fields.items():
            kind = kinds.get(name)
            if kind is None:
                raise InputError(f"{cls.__name__}: {unknown_field(struct, name)}")
            if not kind.accepts(value):
                fields[name] = decode_field(name, value, kind)
        try:
            return super().__call__(*args, **fields)
        except FieldError as error:
            raise InputError(str(error)) from None
        except TypeError as error:
            missing = _MISSING.fullmatch(str(error))
            if missing is None:
                raise
            raise InputError(f"{cls.__name__}: {missing_field(missing[1])}") from None


class _Checked(
    msgspec.Struct,
    metaclass=_CheckedMeta,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    repr_omit_defaults=True,
):
    def replace(self, **changes: Any) -> Self:
        """Return the same with other fields, checked like a new one.

        Raises
        ------
        InputError
            If a field is unknown, or its value is refused.
        """
        return type(self)(**(msgspec.structs.asdict(self) | changes))

    __replace__ = replace  # copy.replace of Python 3.13


# --- the machine -----------------------------------------------------------------------------


class Node(_Checked, frozen=True, kw_only=True):
    """A NUMA node; its memory follows the memory of the node before it."""

    memory: Size


class Region(_Checked, frozen=True, kw_only=True):
    """The region that a Hyper-V host names for a hot-add; the range added lies in it."""

    address: Address
    size: Size


class Range(_Checked, frozen=True, kw_only=True):
    """A further range of a device that has several."""

    address: Address
    size: Size

    def __post_init__(self) -> None:
        checks.check_range(self)


class Device(_Checked, frozen=True, kw_only=True):
    """A device that is there when the scenario starts: at boot, or in a sysroot."""

    id: str
    address: Address
    size: Size
    driver: str = "dimm"
    node: int = 0
    self_hosted: bool | None = None
    requested: Size | None = None
    block: Size | None = None

    def __post_init__(self) -> None:
        checks.check_device(self)


class VirtioMemParameters(_Checked, frozen=True, kw_only=True):
    """Parameters of the guest's module ``virtio_mem``."""

    unplug_online: bool = True
    force_bbm: bool = False
    bbm_block_size: Size | None = None
    bbm_safe_unplug: bool = True


class KernelConfig(_Checked, frozen=True, kw_only=True):
    """Options of the kernel's configuration; ``None`` for what the files or a default tell."""

    MEMORY_HOTPLUG: bool | None = None
    MEMORY_HOTREMOVE: bool | None = None
    MHP_MEMMAP_ON_MEMORY: bool | None = None
    MHP_DEFAULT_ONLINE_TYPE: AutoOnline | None = None
    ACPI_HOTPLUG_MEMORY: bool | None = None
    ARCH_MEMORY_PROBE: bool | None = None
    VIRTIO_MEM: bool | None = None
    HYPERV_BALLOON: bool | None = None
    DEV_DAX_KMEM: bool | None = None
    HUGETLB_PAGE_OPTIMIZE_VMEMMAP: bool | None = None
    DEBUG_VM: bool | None = None


class Machine(_Checked, frozen=True, kw_only=True):
    """The machine; a field that is ``None`` has the sysroot's value, or else its default."""

    arch: str | None = None
    page_size: Size | None = None
    release: str | None = None
    memory: Size | None = None
    max_memory: Size | None = None
    platform: _QemuPlatform | _OtherPlatform | None = None
    xen_host_memory: Size | None = None
    xen_max_memory: Size | None = None
    cpus: int | None = None
    nodes: Several[Node] = ()
    block_size: Size | None = None
    cxl_windows: Several[Range] = ()
    struct_page_bytes: int | None = None
    policy: str | None = None
    memmap_on_memory: _MemmapMode | None = None
    online_policy: _OnlinePolicy | None = None
    auto_movable_ratio: int | None = None
    auto_movable_numa_aware: bool | None = None
    movable_node: bool | None = None
    debug_vm: bool | None = None
    hugetlb_free_vmemmap: bool | None = None
    mmu: Literal["radix", "hash"] | None = None
    cmdline: str | None = None
    auto_online_blocks: AutoOnline | None = None
    unbacked_reads: Literal["fault", "allowed"] = "fault"
    balloon: Literal["hyperv"] | None = None
    devices: Several[Device] = ()
    virtio_mem: VirtioMemParameters = VirtioMemParameters()
    config: KernelConfig = KernelConfig()

    def __post_init__(self) -> None:
        checks.check_machine(self)


# --- steps -----------------------------------------------------------------------------------


class _Step(_Checked, frozen=True, kw_only=True, tag_field="do"):
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            checks.check_name(self.name)


class Plug(_Step, frozen=True, kw_only=True, tag="plug"):
    """Plug memory, by one of the drivers."""

    size: Size
    id: str
    driver: str = "dimm"
    address: Address | None = None
    node: int | None = None
    region: Region | None = None
    more_ranges: Several[Range] = ()
    dax: Literal["cxl", "pmem", "hmem"] | None = None
    memmap_on_memory: bool | None = None
    increment: Size | None = None
    requested: Size | None = None
    block: Size | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_plug(self)


class Unplug(_Step, frozen=True, kw_only=True, tag="unplug"):
    """Request a device back; the kernel offlines its blocks itself if it can."""

    id: str


class Resize(_Step, frozen=True, kw_only=True, tag="resize"):
    """Request another size of a device or balloon; the guest grows or shrinks towards it."""

    id: str
    size: Size


class Selection(_Step, frozen=True, kw_only=True):
    """A step on memory blocks: those of a device, or by their ids."""

    id: str | None = None
    blocks: _Blocks = None
    part: Literal["all", "first", "middle", "last"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_selection(self)


class Online(Selection, frozen=True, kw_only=True, tag="online"):
    """Online memory blocks, in the order given, up to the first refusal."""

    to: OnlineType = "online"


class Offline(Selection, frozen=True, kw_only=True, tag="offline"):
    """Offline memory blocks, in the order given, up to the first refusal."""


class Configure(Selection, frozen=True, kw_only=True, tag="configure"):
    """Configure blocks of s390x standby memory, or deconfigure them."""

    config: bool = True
    memmap_on_memory: bool | None = None


class Write(_Step, frozen=True, kw_only=True, tag="write"):
    """Write a word to a file of memory hotplug, as a shell does; a refusal is the result."""

    file: str
    word: str

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_write(self)

    @property
    def dax_device(self) -> str | None:
        """The id of the dax device whose ``state`` is written; ``None`` for another file."""
        return self.file.split("/")[5] if self.file.startswith("/sys/bus/dax/") else None


class Reboot(_Step, frozen=True, kw_only=True, tag="reboot"):
    """Boot again: devices that were plugged while the kernel ran are there from the start."""


class Fill(_Step, frozen=True, kw_only=True, tag="fill"):
    """Use pages: by default for a file of that size in memory (tmpfs), which can move."""

    id: str
    size: Size
    kind: FillKind = "file"
    page_size: Size | None = None
    node: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_fill(self)


class HugePages(_Step, frozen=True, kw_only=True, tag="hugepages"):
    """Write a number to ``nr_hugepages`` of a node: its pool grows or shrinks to it."""

    nr_hugepages: int
    page_size: Size | None = None
    node: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_huge_pages(self)


class Free(_Step, frozen=True, kw_only=True, tag="free"):
    """Free the pages of a ``fill``; the content of a file is checked first."""

    id: str


class Poison(_Step, frozen=True, kw_only=True, tag="poison"):
    """Take a page out of use for its errors (HWPoison), by ``soft_offline_page``."""

    address: Address


class Veto(_Step, frozen=True, kw_only=True, tag="veto"):
    """Have a listener of the memory notifier chain veto an action from now on."""

    on: VetoOn
    errno: VetoErrno = "EPERM"
    blocks: _Blocks = None
    times: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_veto(self)


class Dump(_Step, frozen=True, kw_only=True, tag="dump"):
    """Read the pages of online blocks, as a crash dump does."""

    exclude_offline: bool = True


class SetTunables(_Step, frozen=True, kw_only=True, tag="set"):
    """Write parameters of the running kernel."""

    auto_online_blocks: AutoOnline | None = None
    online_policy: _OnlinePolicy | None = None
    auto_movable_ratio: int | None = None
    auto_movable_numa_aware: bool | None = None
    fail_block_devices: bool | None = None
    fail_allocation: int | None = None
    acpi_memory_hotplug: bool | None = None
    hugetlb_optimize_vmemmap: bool | None = None
    movable_gigantic_pages: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_set(self)


Step = (
    Plug
    | Unplug
    | Resize
    | Online
    | Offline
    | Configure
    | Fill
    | Free
    | Poison
    | Veto
    | Dump
    | SetTunables
    | HugePages
    | Reboot
    | Write
)


class Scenario(_Checked, frozen=True, kw_only=True):
    """A machine, and the steps that are taken on it."""

    name: str
    description: str = ""
    machine: Machine = Machine()
    steps: Several[Step] = ()

    def __post_init__(self) -> None:
        checks.check_name(self.name)

    def __repr__(self) -> str:
        return f"<Scenario {self.name!r}: {len(self.steps)} steps>"

    def with_machine(self, **changes: Any) -> Self:
        """Return the scenario with other fields of its machine.

        Parameters
        ----------
        **changes
            Fields of :class:`Machine`; ``None`` leaves a field as it is.

        Raises
        ------
        InputError
            If a field is unknown, or its value is refused.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        return self.replace(machine=self.machine.replace(**given))

    def with_steps(self, steps: Iterable[Step]) -> Self:
        """Return the scenario with other steps."""
        return self.replace(steps=tuple(steps))
