"""Files made to take long, to take much, or to reach other files: one line for each."""

import pytest

from altmap.errors import InputError
from altmap.vm.readers import MOST_BYTES, read_definitions

KIND = b"apiVersion: kubevirt.io/v1\nkind: VirtualMachine\n"
DOMAIN = b"<domain type='kvm'><name>x</name><memory>4194304</memory>%s</domain>"


def entities(value):
    levels = b"".join(b'<!ENTITY e%d "%s">' % (n + 1, b"&e%d;" % n * 10) for n in range(12))
    return b'<!DOCTYPE d [<!ENTITY e0 "x">' + levels + b"]>" + value


def aliases(merge):
    line = b"k%d: &a%d {<<: [%s]}\n" if merge else b"k%d: &a%d [%s]\n"
    first = b"k0: &a0 {x: 1}\n"
    more = (line % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 30))
    return KIND + first + b"".join(more)


HOSTILE = {
    "entities in text": entities(b"<domain type='kvm'><name>&e12;</name></domain>"),
    "entities in an attribute": entities(b"<domain type='&e12;'/>"),
    "another file": b'<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    b"<domain type='kvm'><name>&e;</name><memory>4194304</memory></domain>",
    "many devices of libvirt": DOMAIN % (b"<memory/>" * 200_000),
    "nested XML": b"<domain>" * 1000 + b"</domain>" * 1000,
    "ten thousand options": b"qemu-system-x86_64 -m 1G " + b"-device pc-dimm " * 10_001,
    "many properties": b"qemu-system-x86_64 -m " + b"a=b," * 100_000,
    "nested JSON": b"[" * 100_000,
    "nested JSON objects": b'{"memory":' * 10_000,
    "JSON that never ends": b"qemu-system-x86_64 -m x " + b'{"a ' * 20_000,
    "a number of JSON": b'{"machine-config":{"mem_size_mib":' + b"9" * 5000 + b"}}",
    "no number of JSON": b'{"machine-config":{"mem_size_mib":NaN}}',
    "infinite numbers of JSON": b'{"machine-config":{"mem_size_mib":1e999}}',
    "aliases": aliases(merge=False),
    "merged aliases": aliases(merge=True),
    "an alias of itself": KIND + b"spec: &a\n  template: *a\n",
    "nested YAML": KIND + b"a: " + b"[" * 5000,
    "nested YAML lists": KIND + b"- " * 5000,
    "a type of Python in YAML": KIND + b"spec: !!python/object/apply:os.system [id]\n",
    "variables that double": b"A0=xxxxxxxxxx\n"
    + b"".join(b"A%d=$A%d$A%d\n" % (n, n - 1, n - 1) for n in range(1, 100))
    + b"qemu-system-x86_64 -m $A99\n",
    "commas in brackets": b"cloud-hypervisor --memory size=x," + b"a=[," * 50_000,
    "a size of 2^64": b"qemu-system-x86_64 -m 18446744073709551616",
    "a size below zero": b"<domain type='kvm'><name>x</name><memory>-1</memory></domain>",
    "no text": bytes(range(256)) * 100,
    "zero bytes": bytes(1000),
    "spaces": b" " * 100_000,
    "too large": b"x" * (MOST_BYTES + 1),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(raw):
    with pytest.raises(InputError) as refused:
        read_definitions(raw, "file")
    assert "\n" not in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 700


def test_a_name_with_escapes_is_printed_as_text():
    with pytest.raises(InputError, match=r"\\x1b\[31m: is empty"):
        read_definitions(b"", "\x1b[31m")


def test_what_aliases_name_is_read_once():
    machine = KIND + b"spec: {template: {spec: {domain: {memory: {guest: 1Gi}}}}}\n"
    bomb = aliases(merge=False).removeprefix(KIND)
    (made,) = read_definitions(bomb + machine, "file")
    assert made.memory_bytes == 1 << 30
