"""What the plugin tells, read: frames by function, the frames of a fault, and their places."""

import tempfile
from types import SimpleNamespace

import pytest

from altmap.errors import LabError
from altmap.lab import touch_log, touch_plugin
from altmap.lab.arches import guest_arch
from altmap.lab.symbols import Symbols, parse_kallsyms
from altmap.lab.touch_log import LoggedTouch, TouchLog, by_function, frames_of_fault, parse_touches
from altmap.pfn import PfnRange, PfnSet

KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81000100 t mark_pages.constprop.0
ffffffff81000200 T memmap_init_range
ffffffff81000300 D some_data
ffffffffc0001000 t hv_online_page\t[hv_balloon]
"""
MARK, INIT, ONLINE = 0xFFFFFFFF81000110, 0xFFFFFFFF81000310, 0xFFFFFFFFC0001FFF
SYMBOLS = Symbols(parse_kallsyms(KALLSYMS))
LINES = b"""\
epoch 3
w 100000034 ffffea0004000034 ffffffff81000110 io
r 100001000 ffffea0004001000 ffffffff81000110 ram
w 100002000 ffffea0004002000 ffffffff8100"""


def frames(*pfns):
    return PfnSet(PfnRange(pfn, pfn + 1) for pfn in pfns)


def physical(touch):
    return touch.address // 4096


def test_whole_lines_are_touches_in_their_order():
    assert list(parse_touches(LINES)) == [
        LoggedTouch("write", 0x100000034, MARK, is_backed=False),
        LoggedTouch("read", 0x100001000, MARK, is_backed=True),
    ]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFFFFFF80FFFFFF, ""),
        (0xFFFFFFFF81000000, "_stext"),
        (0xFFFFFFFF810000FF, "_stext"),
        (MARK, "mark_pages"),
        (INIT, "memmap_init_range"),  # data is no function
        (ONLINE, "hv_online_page"),
    ],
)
def test_an_address_is_in_the_function_that_begins_before_it(address, name):
    assert SYMBOLS.name_of(address) == name


def touch(pfn, instruction, access="write", *, backed=False):
    return LoggedTouch(access, pfn * 4096, instruction, backed)


def test_a_frame_is_of_the_first_function_that_did_the_same_to_it():
    touches = [touch(1, MARK), touch(1, INIT), touch(2, INIT), touch(1, INIT, "read")]
    found = by_function(touches, physical, SYMBOLS)
    assert [(each.access, each.function, each.pfns) for each in found] == [
        ("write", "mark_pages", frames(1)),
        ("write", "memmap_init_range", frames(2)),
        ("read", "memmap_init_range", frames(1)),
    ]
    assert by_function(touches, lambda _: None, SYMBOLS) == []


def test_a_fault_has_the_frames_of_its_function_up_to_another_one():
    touches = [
        touch(9, INIT, backed=True),
        touch(1, MARK),
        touch(7, INIT, backed=True),  # what is backed ends nothing
        touch(5, MARK, "read"),
        touch(2, MARK),
        touch(3, INIT),
        touch(4, MARK),
    ]
    fault, is_over = frames_of_fault(touches, SYMBOLS, reads_fault=True)
    assert (fault.access, fault.function, fault.pfns) == ("write", "mark_pages", frames(1, 2))
    assert is_over
    fault, is_over = frames_of_fault(touches[:5], SYMBOLS, reads_fault=True)
    assert (fault.pfns, is_over) == (frames(1, 2), False)
    assert frames_of_fault(touches[:1], SYMBOLS, reads_fault=True) == (None, False)


def test_a_read_is_a_fault_unless_it_is_allowed():
    touches = [touch(1, INIT, "read"), touch(2, MARK)]
    fault, _ = frames_of_fault(touches, SYMBOLS, reads_fault=True)
    assert (fault.access, fault.pfns) == ("read", frames(1))
    fault, _ = frames_of_fault(touches, SYMBOLS, reads_fault=False)
    assert (fault.access, fault.pfns) == ("write", frames(2))


REGION = PfnRange(0x100000, 0x200000)
RAMBLOCKS = """\
              Block Name    PSize              Offset               Used              Total
                     ram    4 KiB  0x0000000000000000 0x0000000040000000 0x0000000040000000
               hv1-memory    4 KiB  0x0000000040300000 0x0000000004000000 0x0000000004000000
               hv2-memory    4 KiB  0x0000000044300000 0x0000000004000000 0x0000000004000000
"""
DEVICES = [
    {"data": {"memdev": "/objects/hv1-memory", "addr": 0x104000000, "size": 0x4000000}},
    {"data": {"memdev": "/objects/hv2-memory", "addr": 0x110000000, "size": 0x4000000}},
]


@pytest.fixture
def log(monkeypatch):
    """A function that makes the log of a guest under some QEMU; what began is its attribute."""
    began, opened = [], []

    def make(version, devices=DEVICES):
        monkeypatch.setattr(touch_log, "qemu_version", lambda _: f"QEMU emulator version {version}")
        monkeypatch.setattr(touch_log, "read_symbols", lambda _: SYMBOLS)
        answers = {"query-memory-devices": devices, "human-monitor-command": RAMBLOCKS}
        hardware = SimpleNamespace(guest=None, memory_bytes=1 << 30)
        qmp = SimpleNamespace(execute=lambda command, **_: answers[command])
        lines = tempfile.TemporaryFile()  # noqa: SIM115 -- closed below
        opened.append(lines)
        files = SimpleNamespace(lines=lines, begin=lambda *a: began.append(a), end=lambda: None)
        made = TouchLog(SimpleNamespace(hardware=hardware, qmp=qmp), files, REGION)
        made.lines = lines
        return made

    make.began = began
    yield make
    for lines in opened:
        lines.close()


def place(log, address, *, backed=True):
    return log.frame_of(LoggedTouch("write", address, MARK, backed))


def test_an_old_qemu_tells_the_sum_of_two_offsets(log):
    old = log("7.2.22")
    old.begin()
    assert log.began == [(1 << 30, 0x100000000)]
    assert place(old, 0x40300000 + 0x4000000) == 0x104000
    assert place(old, 0x40300000 + 0x4000000 + 0x3FFFFFF) == 0x107FFF
    assert place(old, 0x44300000 + 0x10000000) == 0x110000
    assert place(old, 0x44300000 + 0x4000000) is None  # of no device
    assert place(old, 0x104000000, backed=False) == 0x104000
    assert place(old, 0xFED00000, backed=False) is None


def test_a_sum_that_fits_two_devices_is_of_neither(log):
    # 0x40300000 + 0x14000000 = 0x44300000 + 0x10000000
    first = {"data": {"memdev": "/objects/hv1-memory", "addr": 0x114000000, "size": 0x4000000}}
    old = log("7.2.22", [first, DEVICES[1]])
    old.begin()
    assert place(old, 0x54300000) is None


def test_a_new_qemu_tells_a_physical_address(log):
    new = log("8.2.0")
    new.begin()
    assert log.began == [(0x100000000, 0x100000000)]
    assert place(new, 0x104000000) == 0x104000
    assert place(new, 0x1000) is None


def test_a_step_has_what_the_plugin_wrote_since_it_began(log):
    new = log("10.0")
    new.lines.write(b"w 100005000 0 ffffffff81000110 ram\n")
    new.lines.flush()
    new.begin()
    new.lines.write(b"epoch 2\nw 100006000 0 ffffffff81000110 ram\n")
    new.lines.flush()
    (only,) = new.end()
    assert (only.function, only.pfns) == ("mark_pages", frames(0x100006))


# --- the plugin itself ---------------------------------------------------------------------------


@pytest.fixture
def guest(monkeypatch):
    monkeypatch.setattr(touch_plugin, "_takes_plugins", lambda _: True)
    return guest_arch("x86_64")


def test_the_plugin_is_compiled_once_for_each_version_of_qemu(guest, tmp_path):
    first = touch_plugin.build_plugin(guest, "QEMU emulator version 7.2.22", tmp_path)
    made = first.stat().st_mtime_ns
    again = touch_plugin.build_plugin(guest, "QEMU emulator version 7.2.22", tmp_path)
    assert (again, again.stat().st_mtime_ns) == (first, made)
    other = touch_plugin.build_plugin(guest, "QEMU emulator version 10.0.2", tmp_path)
    assert other != first
    assert sorted((tmp_path / "plugins").iterdir()) == sorted([first, other])


@pytest.mark.parametrize(("version", "interface"), [("7.2.22", 1), ("8.2.0", 1), ("9.0.0", 2)])
def test_qemu_is_told_an_interface_that_it_knows(version, interface):
    assert touch_plugin._interface(f"QEMU emulator version {version} (Debian)") == interface


def test_a_qemu_that_takes_no_plugin_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(touch_plugin, "_takes_plugins", lambda _: False)
    with pytest.raises(LabError, match=r"^QEMU 1: takes no plugins"):
        touch_plugin.build_plugin(guest_arch("x86_64"), "QEMU 1", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_is_one_line(guest, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"^gcc is missing: .*: apt install gcc$"):
        touch_plugin.build_plugin(guest, "QEMU emulator version 7.2", tmp_path)
