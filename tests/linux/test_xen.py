"""``/sys/devices/system/xen_memory``: read and written, whole or not at all."""

import pytest

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot
from altmap.linux.xen import ROOT, BalloonFolder, parse, render

FILES = {
    f"{ROOT}/target_kb": b"614400\n",
    f"{ROOT}/info/current_kb": b"524288\n",
    f"{ROOT}/info/low_kb": b"131072\n",
    f"{ROOT}/info/high_kb": b"0\n",
}


def test_counters_are_read_and_written_as_they_are():
    folder = parse(Reader(Sysroot(dict(FILES))))
    assert folder == BalloonFolder(614400, 524288, 131072)
    assert render(folder).files == FILES


def test_a_machine_without_the_folder_has_no_balloon():
    assert parse(Reader(Sysroot({"proc/meminfo": b""}))) is None


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_is_missing_is_named(path):
    files = {other: raw for other, raw in FILES.items() if other != path}
    with pytest.raises(InputError, match=path):
        parse(Reader(Sysroot(files)))


@pytest.mark.parametrize("text", [b"", b"-1\n", b"many\n", b"9" * 17])
def test_what_is_no_number_is_noted_and_there_is_no_balloon(text):
    path = f"{ROOT}/target_kb"
    seen = Observation.read(Sysroot(FILES | {path: text}))
    assert seen.balloon is None
    assert "need a number of KiB" in seen.problems[path]
