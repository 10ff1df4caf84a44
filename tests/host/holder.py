"""A program for a guest that holds pages: it fills 64 KiB, hands them to a pipe, and unmaps them.

busybox has none that could. It is x86_64's machine code, assembled by hand::

    mmap(0, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    memset(pages, 0x5a, 0x10000)
    pipe(ends)
    vmsplice(ends[1], {pages, 0x10000}, 1, 0)
    munmap(pages, 0x10000)
    pause()
"""

import base64
import struct

_CODE = bytes.fromhex(
    "b80900000031ffbe00000100ba0300000041ba2200000049c7c0ffffffff4531c90f05"
    "4889c34889c7b05ab900000100f3aa"
    "4883ec204889e7b8160000000f05"
    "48895c240848c7442410000001008b7c2404488d742408ba010000004531d2b8160100000f05"
    "4889dfbe00000100b80b0000000f05"
    "b8220000000f05"
)
_BASE, _HEADERS = 0x400000, 64 + 56
NR_PAGES = 16


def hold_pages(guest, cgroup):
    """Run the program in a cgroup, in the background; ``kill $(cat /tmp/holder.pid)`` ends it."""
    size = _HEADERS + len(_CODE)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\2\1\1", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    text = base64.b64encode(header + segment + _CODE).decode()
    guest.run(f"echo {text} | base64 -d >/tmp/holder && chmod +x /tmp/holder")
    start = f"echo $$ >/tmp/holder.pid; echo $$ >{cgroup}/cgroup.procs; exec /tmp/holder"
    guest.run(f"sh -c '{start}' >/dev/null 2>&1 & sleep 1")
