"""What a run exports is the same machine again, for every architecture and release."""

import pytest

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.arch import ARCHES
from altmap.model.machine import ModelMachine, predict
from altmap.model.releases import RELEASES
from altmap.scenario import Machine, Offline, Plug, Scenario, Size
from altmap.storage.export import export

GIB = 1 << 30
#: Releases without a record too: between two records, and before the first one.
NAMES = (*RELEASES, "4.18", "5.14", "6.3", "6.12.95", "7.9")


def exported(folder, machine, *steps):
    trace = predict(Scenario(name="s", machine=machine, steps=list(steps)))
    export({"": trace}, folder / "out")
    return trace, folder / "out"


@pytest.mark.parametrize("release", NAMES)
@pytest.mark.parametrize("arch", ARCHES)
def test_an_export_is_the_same_machine_again(tmp_path, arch, release):
    machine = Machine(arch=arch, release=release, memory=Size(4 * GIB))
    first = ModelMachine.start(machine)
    folder = tmp_path / "root"
    first.observe().render().write(folder)
    again = ModelMachine.start(Machine(), Observation.read(Sysroot.read(folder)))
    assert again.kernel.arch == first.kernel.arch
    assert again.kernel.release is first.kernel.release
    assert again.kernel.block_nr_pages == first.kernel.block_nr_pages
    version = (folder / "proc/version").read_text()
    assert version.startswith(f"Linux version {release}")
    shown = folder / "proc/sys/kernel/arch"
    assert shown.exists() is first.kernel.release.shows_arch
    if shown.exists():
        assert shown.read_text() == f"{first.kernel.arch.family}\n"


@pytest.mark.parametrize("mmu", ["radix", "hash"])
@pytest.mark.parametrize("arch", ["ppc64le", "ppc64le-64k"])
def test_an_export_has_the_same_mmu_again(arch, mmu):
    first = ModelMachine.start(Machine(arch=arch, mmu=mmu, memory=Size(4 * GIB)))
    seen = Observation.read(first.observe().render())
    assert ModelMachine.start(Machine(), seen).kernel.arch == first.kernel.arch


def test_carrying_on_ends_as_the_first_run_does(tmp_path):
    step = Offline(blocks=9)
    machine = Machine(arch="aarch64", release="5.15", memory=Size(2 * GIB))
    trace, out = exported(tmp_path, machine, step)
    again = predict(Scenario(name="t", steps=[step]), Sysroot.read(out / "00-start"))
    assert trace.steps[1].outcome.errno == "EPERM"
    assert again.steps[1].outcome.errno == "EPERM"
    assert again.steps[1].outcome.function == trace.steps[1].outcome.function


@pytest.mark.parametrize("release", ["5.15", "6.12"])
def test_memory_of_kmem_lies_inside_the_resource_of_its_device(tmp_path, release):
    plug = Plug(id="dax0.0", size=Size(GIB), driver="kmem")
    machine = Machine(release=release, auto_online_blocks="online")
    _, out = exported(tmp_path, machine, plug)
    lines = (out / "01-plug-dax0.0/proc/iomem").read_text().splitlines()
    at = next(nr for nr, line in enumerate(lines) if line.endswith(" : dax0.0"))
    assert lines[at + 1].strip().endswith(" : System RAM (kmem)")
    assert lines[at + 1].startswith("  " + lines[at][: len(lines[at]) - len(lines[at].lstrip())])
    again = ModelMachine.start(Machine(), Observation.read(Sysroot.read(out / "01-plug-dax0.0")))
    assert again.device_ids("kmem") == ["dax0.0"]
