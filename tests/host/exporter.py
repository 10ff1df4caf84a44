"""Debian's prometheus-node-exporter: fetched into the cache, never installed, run for a moment."""

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from altmap.lab.apt import Archive
from altmap.lab.kernels import cache_folder
from altmap.lab.tools import extract_first
from altmap.storage.locks import locked

PACKAGE = "prometheus-node-exporter"
_START_SECONDS = 20.0


def fetch_exporter():
    """Return the program, downloaded as the lab's kernels are."""
    folder = cache_folder() / "peers"
    program = folder / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not program.exists():
            archive = Archive(cache_folder() / "apt", "amd64", ("bookworm", "trixie"))
            archive.update()
            archive.download({PACKAGE: archive.versions(PACKAGE)[0]}, folder)
            (deb,) = folder.glob(f"{PACKAGE}_*.deb")
            draft = folder / "draft"
            extract_first(deb, (f"*/bin/{PACKAGE}",), draft)
            deb.unlink()
            draft.chmod(0o755)
            draft.rename(program)
    return program


def scraped(program, root, collectors):
    """Return what it says of the files below a folder, by name and labels, on the loopback."""
    port = _free_port()
    command = [
        *(program, f"--path.procfs={root}/proc", f"--path.sysfs={root}/sys"),
        *("--collector.disable-defaults", "--web.disable-exporter-metrics", "--log.level=error"),
        *(f"--collector.{name}" for name in collectors),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _running(command):
        text = _answer(f"http://127.0.0.1:{port}/metrics")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def _running(command):
    """Run a program while inside; it is ended, and its end waited for."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ran:
        try:
            yield
        finally:
            ran.kill()


def _answer(url):
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
