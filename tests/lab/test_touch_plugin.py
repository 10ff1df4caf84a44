"""The plugin for QEMU with functions of QEMU that we write here, and the lab's side of it."""

import contextlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from altmap.lab import touch_plugin

SOURCE = Path(touch_plugin.__file__).with_name("qemu_plugin") / "touches.c"
#: A QEMU that accesses one page of memory. "ends" is an access during which the lab ends the epoch.
QEMU = r"""
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
static void (*translate)(uint64_t, void *);
static void (*access_)(unsigned, uint32_t, uint64_t, void *);
static volatile uint32_t *epoch;
static bool ends;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void *callback) { translate = callback; }
size_t qemu_plugin_tb_n_insns(void *tb) { return 1; }
void *qemu_plugin_tb_get_insn(void *tb, size_t nr) { return tb; }
uint64_t qemu_plugin_insn_vaddr(void *insn) { return 0xffffffff81000000; }
void qemu_plugin_register_vcpu_mem_cb(void *insn, void *callback, int a, int b, void *data)
{ access_ = callback; }
bool qemu_plugin_mem_is_store(uint32_t info) { return true; }
void *qemu_plugin_get_hwaddr(uint32_t info, uint64_t address)
{ if (ends) *epoch = 0; return &ends; }
bool qemu_plugin_hwaddr_is_io(void *place) { return false; }
uint64_t qemu_plugin_hwaddr_phys_addr(void *place) { return 0x5000; }
int qemu_plugin_install(uint64_t, void *, int, char **);
int main(int argc, char **argv)
{
	char out[] = "out=1", control[] = "control=0", *arguments[] = { out, control };
	if (qemu_plugin_install(1, 0, 2, arguments))
		return 1;
	epoch = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 0);
	translate(1, argv);
	for (int nr = 1; nr < argc; nr++) {
		ends = !strcmp(argv[nr], "ends");
		if (!strncmp(argv[nr], "epoch", 5))
			*epoch = argv[nr][5] - '0';
		else
			access_(0, 0, 0xff11000000005000, (void *)0x81);
	}
	return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("missing: gcc")
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "qemu.c").write_text(QEMU)
    command = ["gcc", "-w", "-DINTERFACE_VERSION=1", "-o", "program", "qemu.c", str(SOURCE)]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "program"


def told(program, tmp_path, *accesses, first_ram=0x5000):
    """Return the lines that the plugin writes."""
    control, out = tmp_path / "control", tmp_path / "out"
    control.write_bytes(struct.pack("<IIQQ", 0, 0, first_ram, 0).ljust(4096, b"\0"))
    with control.open("r+b") as stdin, out.open("wb") as stdout:
        command = [str(program), *accesses]
        subprocess.run(command, stdin=stdin, stdout=stdout, check=True, timeout=20)
    return out.read_text().splitlines()


LINE = "w 5000 ff11000000005000 81 ram"


def test_an_access_is_told_once_in_each_epoch(program, tmp_path):
    lines = told(program, tmp_path, "once", "epoch1", "once", "once", "epoch2", "once")
    assert lines == ["epoch 1", LINE, "epoch 2", LINE]


def test_memory_below_the_first_address_does_not_count(program, tmp_path):
    assert told(program, tmp_path, "epoch1", "once", first_ram=0x6000) == []


def test_an_epoch_that_ends_during_an_access_ends_neither_guest_nor_count(program, tmp_path):
    # With an empty table, an entry of epoch 0 is looked for without end.
    assert told(program, tmp_path, "epoch1", "ends") == []
    assert told(program, tmp_path, "epoch1", "ends", "epoch2", "once") == ["epoch 2", LINE]


def test_the_lab_changes_addresses_while_nothing_counts(tmp_path):
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context((tmp_path / "lines").open("w+b"))
        files = touch_plugin.TouchFiles(tmp_path / "plugin.so", lines, stack)
        written = []

        class Watched:
            def __setitem__(self, part, value):
                shared[part] = value
                written.append(struct.unpack("<IIQQ", shared[:24]))

        shared, files._shared = files._shared, Watched()
        assert [files.begin(0x1000, 0x2000), files.begin(0x3000, 0x4000)] == [1, 2]
        files.end()
        files._shared = shared
    assert written[-1] == (0, 0, 0x3000, 0x4000)
    addresses = {1: (0x1000, 0x2000), 2: (0x3000, 0x4000)}
    assert {epoch for epoch, *_ in written} == {0, 1, 2}
    assert all(found == addresses[epoch] for epoch, _, *rest in written if epoch
               for found in [tuple(rest)])  # fmt: skip
