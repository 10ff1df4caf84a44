"""Lines of the kernel's log about hotplug."""

from pathlib import Path

from altmap.linux.kernel_log import kernel_lines

SEEDS = [
    b"[   12.345678] Offlined Pages 32768\n[   12.4] Built 1 zonelists, mobility grouping on.\n",
    b"Nov 28 19:00:00 host kernel: page:00000000aa refcount:2 mapcount:0 index:0x0 pfn:0x12345\n"
    b"Nov 28 19:00:00 host kernel: page dumped because: unmovable page\n",
    b"<4>[    1.0] memory_hotplug: rejecting DAX region [mem 0x100-0x1ff]\n",
    b"6,1234,5678901,-;ACPI: memory _OST\n SUBSYSTEM=acpi\n",
    b'{"_TRANSPORT":"kernel","MESSAGE":"Offlined Pages 1","_SOURCE_MONOTONIC_TIMESTAMP":"12"}\n',
    b"[T123] [2026-11-28T19:00:00,123456+00:00] unaligned hotplug range\n",
]


def TestOneInput(data: bytes) -> None:
    for line in kernel_lines(data.decode("utf-8", "backslashreplace").splitlines()):
        assert line is not None


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
