"""The kernel of a guest: its release, and what its command line and configuration decide.

Sources: ``Documentation/admin-guide/kernel-parameters.txt``; ``mm/Kconfig``; parameters of
``mm/memory_hotplug.c`` and ``drivers/virtio/virtio_mem.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from altmap.errors import InputError
from altmap.linux.evidence import config_options
from altmap.model.adopt.options import debian_unset, default_online
from altmap.model.arch import Arch, arch_with_pages
from altmap.model.boot.costs import costs_of
from altmap.model.boot.parameters import BOOT_WORDS
from altmap.model.kernel.options import DRIVER_OPTIONS
from altmap.model.releases import Release, release_for
from altmap.scenario import DEFAULT_RELEASE
from altmap.vm.definition import Definition, Unread

__all__ = ("GuestKernel", "cmdline_words", "guest_kernel")

_ONLINE = ("offline", "online", "online_kernel", "online_movable")
_TRUE, _FALSE = ("1", "y", "yes", "on", "t", "true"), ("0", "n", "no", "off", "f", "false")
#: Words of a command line that change memory and that no scenario has.
_NOT_MODELLED = {
    "hugetlb_cma": "not modelled: keeps memory for gigantic pages and, until then, movable ones",
    "memtest": "not modelled: may take bad memory out of use at boot",
    "numa": "not modelled: divides the memory into nodes that the hypervisor does not have",
}
#: Forms of memmap= that change the firmware's map in other ways.
_OTHER_MAPS = re.compile(r"(?:.*,)?(?:exact|[^,]*[@%])", re.IGNORECASE)
_NO_CMA = "has no effect: Debian's {family} kernels leave CONFIG_DMA_CMA unset"
#: Page sizes by the option of a configuration that chooses them.
_PAGE_SIZES = {
    "ARM64_4K_PAGES": 4 << 10,
    "ARM64_16K_PAGES": 16 << 10,
    "ARM64_64K_PAGES": 64 << 10,
    "PPC_4K_PAGES": 4 << 10,
    "PPC_64K_PAGES": 64 << 10,
}
#: A driver and the option without which a kernel does not have it.
_OPTIONS = {
    **{driver: DRIVER_OPTIONS[driver][0] for driver in ("virtio-mem", "hyperv")},
    "balloon": "VIRTIO_BALLOON",
}


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """What a guest runs, as far as it decides how memory is added.

    Attributes
    ----------
    release : str
    stated : str
        Where the release is from: an option, a file, or that it is the default.
    settings : mapping of str to object
        Keys of a scenario's machine that the command line and the configuration set.
    missing : mapping of str to str
        Drivers that the kernel does not have, each with the reason.
    removes : bool
        The kernel can remove memory (CONFIG_MEMORY_HOTREMOVE).
    cmdline : str
    unread : tuple of Unread
        Words of the command line that change memory and are not modelled, or have no effect.
    """

    release: str
    stated: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    removes: bool = True
    cmdline: str = ""
    unread: tuple[Unread, ...] = ()

    @property
    def record(self) -> Release:
        """The release's behaviours."""
        return release_for(self.release)


def guest_kernel(
    definition: Definition,
    *,
    release: str | None = None,
    cmdline: str | None = None,
    config: str | None = None,
) -> GuestKernel:
    """Return the kernel of a guest.

    Parameters
    ----------
    definition : Definition
        Its command line counts if none is given.
    release : str, optional
        Such as ``6.12``; without it that of the configuration, else the default.
    cmdline : str, optional
        The kernel's command line.
    config : str, optional
        The text of the kernel's configuration; without it Debian's is assumed.

    Raises
    ------
    InputError
        If the release is unknown, or the configuration is none.
    """
    options = None if config is None else _options(config)
    named, stated = release, "--release"
    if named is None and config is not None:
        match = re.search(r"^# Linux/\S+ (\d+\.\d+)\S* Kernel Configuration", config, re.MULTILINE)
        named, stated = (match[1], "--config") if match else (None, "")
    if named is None:
        named, stated = DEFAULT_RELEASE, "the default; --release says which"
    release_for(named)
    words = cmdline if cmdline is not None else definition.cmdline or ""
    settings = dict(_configured(options)) if options is not None else {}
    arch = arch_with_pages(definition.arch, settings.get("page_size"))
    settings |= dict(_of_words(cmdline_words(words)))
    kept = [word for word in words.split() if word.partition("=")[0] in BOOT_WORDS]
    if options is not None and "cma" not in cmdline_words(words):
        kept += _configured_cma(arch, options)
    if kept:
        settings["cmdline"] = " ".join(kept)
    missing = dict(_missing(arch, release_for(named), options, words))
    if "standby" in arch.mechanisms:
        missing["dimm"] = f"machines of {arch.family} have no DIMMs"
    elif definition.acpi is False and "acpi" in arch.mechanisms:
        missing["dimm"] = "the definition leaves ACPI out, which announces DIMMs"
    return GuestKernel(
        named,
        stated,
        settings,
        missing,
        options is None or "MEMORY_HOTREMOVE" in options,
        words,
        tuple(_not_modelled(words, arch, options)),
    )


def cmdline_words(cmdline: str) -> dict[str, str]:
    """Return the parameters of a command line, ``-`` in a name as ``_``; the last of a name counts.

    Source: ``kernel/params.c: next_arg, parameqn``.
    """
    found = {}
    for match in re.finditer(r'(?:"[^"]*"?|[^\s"])+', cmdline):
        word = match[0].replace('"', "")
        if word == "--":
            break
        name, _, value = word.partition("=")
        found[name.replace("-", "_")] = value
    return found


def _of_words(words: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a scenario's machine that a command line sets."""
    if words.get("memhp_default_state") in _ONLINE:
        yield "auto_online_blocks", words["memhp_default_state"]
    memmap = words.get("memory_hotplug.memmap_on_memory")
    if memmap is not None and memmap.lower() == "force":
        yield "memmap_on_memory", "force"
    elif (on := _switch(memmap)) is not None:
        yield "memmap_on_memory", "on" if on else "off"
    if words.get("memory_hotplug.online_policy") in ("contig-zones", "auto-movable"):
        yield "online_policy", words["memory_hotplug.online_policy"]
    if re.fullmatch(r"[0-9]{1,9}", words.get("memory_hotplug.auto_movable_ratio", "")):
        yield "auto_movable_ratio", int(words["memory_hotplug.auto_movable_ratio"])
    aware = _switch(words.get("memory_hotplug.auto_movable_numa_aware"))
    if aware is not None:
        yield "auto_movable_numa_aware", aware
    if "movable_node" in words:
        yield "movable_node", True
    if _switch(words.get("hugetlb_free_vmemmap")):
        yield "hugetlb_free_vmemmap", True
    virtio_mem = {}
    for name in ("unplug_online", "force_bbm", "bbm_safe_unplug"):
        if (switch := _switch(words.get(f"virtio_mem.{name}"))) is not None:
            virtio_mem[name] = switch
    if virtio_mem:
        yield "virtio_mem", virtio_mem


def _switch(word: str | None) -> bool | None:
    """Return a boolean parameter (``lib/kstrtox.c: kstrtobool``); a bare name is true."""
    if word is None:
        return None
    return False if word.lower() in _FALSE else True if word.lower() in ("", *_TRUE) else None


def _not_modelled(cmdline: str, arch: Arch, options: Mapping[str, str] | None) -> Iterator[Unread]:
    for name, value in cmdline_words(cmdline).items():
        word = f"{name}={value}"
        if name in _NOT_MODELLED and not (name == "numa" and not value.startswith("fake")):
            yield Unread(word, _NOT_MODELLED[name])
        elif name == "memmap" and not arch.reads_memmap_word:
            yield Unread(word, f"has no effect: kernels of {arch.family} do not read it")
        elif name == "memmap" and _OTHER_MAPS.match(value):
            yield Unread(word, "not modelled: changes the firmware's memory map")
        elif name == "kernelcore" and "mirror" in value:
            yield Unread(word, "has no effect: a virtual machine has no mirrored memory")
        elif name == "cma" and costs_of(arch).cma_bytes is None:
            if options is None:
                yield Unread(word, _NO_CMA.format(family=arch.family))
            elif "DMA_CMA" in options:
                yield Unread(word, "not modelled: keeps memory for devices and movable pages")


# --- the configuration ---------------------------------------------------------------------


def _options(config: str) -> dict[str, str]:
    """Return the options that are set.

    Raises
    ------
    InputError
        If the text is no configuration of a kernel.
    """
    found = config_options(config)
    if not found:
        raise InputError("--config: need lines such as CONFIG_MEMORY_HOTPLUG=y")
    return found


def _configured(options: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    pages = [size for name, size in _PAGE_SIZES.items() if name in options]
    if pages:
        yield "page_size", pages[0]
    yield "auto_online_blocks", default_online(options)
    if "MHP_MEMMAP_ON_MEMORY" not in options:
        yield "memmap_on_memory", "off"


def _configured_cma(arch: Arch, options: Mapping[str, str]) -> list[str]:
    """Return the word that says what the configuration does, where it is not Debian's."""
    by_default = costs_of(arch).cma_bytes
    configured = options.get("CMA_SIZE_MBYTES", "") if "DMA_CMA" in options else ""
    mib = int(configured) if configured.isdigit() else 0
    return [] if by_default is None or mib << 20 == by_default else [f"cma={mib}M"]


def _missing(
    arch: Arch, release: Release, options: Mapping[str, str] | None, cmdline: str
) -> Iterator[tuple[str, str]]:
    """Yield the drivers that the kernel does not have, or does not use."""
    words = cmdline_words(cmdline)
    if options is not None and "MEMORY_HOTPLUG" not in options:
        why = "the configuration leaves CONFIG_MEMORY_HOTPLUG unset"
        yield from ((driver, why) for driver in ("dimm", "virtio-mem", "hyperv"))
        return
    dimms = "dlpar" in arch.mechanisms or "ACPI_HOTPLUG_MEMORY" not in debian_unset(arch.flavour)
    if options is None and not dimms:
        yield "dimm", f"Debian's {arch.family} kernels leave CONFIG_ACPI_HOTPLUG_MEMORY unset"
    if arch.family not in release.virtio_mem:
        yield "virtio-mem", f"Linux {release.name} has no virtio-mem on {arch.family}"
    if not arch.knows_node_of_address:
        yield "hyperv", f"hv_balloon adds no memory on {arch.family}"
    if options is not None:
        if "acpi" in arch.mechanisms and "ACPI_HOTPLUG_MEMORY" not in options:
            yield "dimm", "the configuration leaves CONFIG_ACPI_HOTPLUG_MEMORY unset"
        for driver, option in _OPTIONS.items():
            if option not in options:
                yield driver, f"the configuration leaves CONFIG_{option} unset"
    if "acpi_no_memhotplug" in words or words.get("acpi") == "off":
        word = "acpi=off" if words.get("acpi") == "off" else "acpi_no_memhotplug"
        if "acpi" in arch.mechanisms:
            yield "dimm", f"the kernel's command line has {word}"
