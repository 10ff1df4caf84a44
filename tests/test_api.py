"""The public API: its names, what each call does, and that its documents run as shown."""

import ast
import doctest
import importlib.util
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import altmap
from altmap.compare import Comparison
from altmap.compare import compare as compare_traces
from altmap.model import machine as model
from altmap.report.notebook import Account
from altmap.storage.recording import read_recording
from altmap.trace import OK, StepRecord

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
RECORDED = ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz"
FENCED = re.compile(r"^```(python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def gib():
    return altmap.load_scenario("scenarios/dimm-1GiB.toml")


@pytest.fixture
def sysroot():
    return altmap.Sysroot.read(RECORDED)


def python(code):
    """Return what code prints in a fresh interpreter."""
    run = [sys.executable, "-c", code]
    return subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout


# --- names -----------------------------------------------------------------------------------


def test_importing_altmap_loads_no_dependency_and_none_of_its_packages():
    code = "import sys, altmap; print([m for m in sys.modules if m.split('.')[0] in"
    assert python(f"{code} ('numpy', 'pyroaring', 'msgspec', 'rich', 'altmap')])") == "['altmap']\n"


def test_dir_has_every_name_before_any_is_used():
    assert set(altmap.__all__) <= set(ast.literal_eval(python("import altmap; print(dir(altmap))")))


@pytest.mark.parametrize("name", altmap.__all__)
def test_every_name_is_there_and_described(name):
    value = getattr(altmap, name)
    assert name == "__version__" or value.__doc__.strip()
    assert f"`{name}" in PAGE.split("\n## Names\n")[1].split("\n## ")[0]


def test_type_checkers_see_every_name():
    tree = ast.parse((ROOT / "src/altmap/__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(checked.test) == "TYPE_CHECKING"
    imported = {alias.name for node in checked.body for alias in node.names}
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(altmap.__all__) - {"__version__"} <= imported | defined


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = altmap.nonsense
    assert not hasattr(altmap, "_nonsense")


@pytest.mark.parametrize(
    "first", ["", "import altmap.compare", "from altmap.compare import Comparison"]
)
def test_compare_stays_the_function_when_the_package_is_imported(first):
    code = f"import altmap\n{first}\nimport altmap.verify.both_sides\nprint(altmap.compare)"
    assert python(code).startswith("<function compare")


# --- functions -------------------------------------------------------------------------------


def test_predict_is_the_model_s(gib):
    assert altmap.predict(gib).to_builtins() == model.predict(gib).to_builtins()


def test_predict_starts_from_a_sysroot_and_says_what_it_lacks(sysroot):
    offline = altmap.Scenario(name="s", steps=[altmap.Offline(blocks=33)])
    seen = altmap.Observation.read(sysroot)
    trace = altmap.predict(offline, sysroot)
    assert trace.steps[1].observation == altmap.predict(offline, seen).steps[1].observation
    assert trace.steps[1].outcome.errno == "EBUSY"
    del sysroot.files["proc/cmdline"]
    sysroot.unreadable = ("proc/iomem.private",)
    notes = altmap.predict(offline, start=sysroot).notes
    assert "the sysroot has no proc/cmdline" in notes
    assert "proc/iomem.private could not be read" in notes


def test_predict_takes_a_policy(gib):
    assert altmap.predict(gib, policy="existing").policy == "existing"
    assert altmap.predict(gib.with_machine(policy="existing")).policy == "existing"
    assert altmap.predict(gib.with_machine(policy="existing"), policy="hinted").policy == "hinted"


def test_run_in_lab_gives_the_guest_the_scenario_of_that_release(gib, monkeypatch):
    asked = []

    def guest(scenario, progress):
        asked.append(scenario.machine.release)
        return model.predict(scenario), []

    monkeypatch.setattr("altmap.lab.target.run_in_guest", guest)
    assert altmap.run_in_lab(gib).release == "6.12"
    assert altmap.run_in_lab(gib, release="6.1").release == "6.1"
    assert asked == ["6.12", "6.1"]


def test_compare_gives_the_comparison_of_the_package():
    recording = read_recording(ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz")
    observed = recording.trace
    predicted = altmap.predict(recording.scenario, observed.steps[0].observation)
    found = altmap.compare(predicted, observed)
    assert isinstance(found, Comparison)
    assert found == compare_traces(predicted, observed)
    assert found.equal
    other = altmap.predict(recording.scenario, observed.steps[0].observation, policy="existing")
    assert not altmap.compare(other, observed).equal


def test_account_takes_a_trace_an_observation_or_a_sysroot(gib, sysroot):
    seen = altmap.Observation.read(sysroot)
    assert altmap.account(sysroot) == altmap.account(seen)
    levels = {level.name: level.size_bytes for level in altmap.account(seen)}
    assert levels["MemFree"] == seen.meminfo["MemFree"] << 10
    trace = altmap.predict(gib)
    ended = trace.steps[-1].observation.meminfo["MemTotal"]
    assert {level.name: level.size_bytes for level in altmap.account(trace)}[
        "MemTotal"
    ] == ended << 10


def test_explain_takes_a_block_by_number_or_name(sysroot):
    by_number, by_name = altmap.explain(33, sysroot), altmap.explain("memory33", sysroot)
    assert by_number == by_name == altmap.explain("33", altmap.Observation.read(sysroot))
    assert (by_number.verdict, by_number.blockers[0].errno) == ("refused", "EBUSY")
    assert "EBUSY by has_unmovable_pages" in str(by_number)
    for block in ("node0", "memory", -1):
        with pytest.raises(altmap.InputError, match="need a block id such as 32"):
            altmap.explain(block, sysroot)
    with pytest.raises(altmap.InputError, match="memory99: there is no such memory block"):
        altmap.explain(99, sysroot)


# --- what a prompt and a notebook show -------------------------------------------------------


def shown(gib, sysroot):
    trace = altmap.predict(gib)
    return [
        gib,
        gib.machine,
        gib.steps[0],
        trace,
        trace.steps[0].observation,
        sysroot,
        altmap.account(trace),
        altmap.explain(33, sysroot),
        altmap.PfnRange(1, 1 << 52),
        altmap.PfnSet([altmap.PfnRange(n, n + 1) for n in range(0, 1000, 2)]),
        altmap.Accounting(present=True, total=False),
    ]


def test_every_repr_is_one_short_line(gib, sysroot):
    for each in shown(gib, sysroot):
        assert len(repr(each)) <= 130, repr(each)
        assert "\n" not in repr(each)


def test_reprs_name_what_matters(gib, sysroot):
    assert repr(gib) == "<Scenario 'dimm-1GiB': 2 steps>"
    fault = altmap.predict(
        altmap.load_scenario("scenarios/hyperv-64MiB-second-half.toml"), policy="rfc-2018"
    )
    assert repr(fault) == (
        "<Trace of 'hyperv-64MiB-second-half' on model 6.12, policy rfc-2018, "
        "1 fault, 1 not_reached>"
    )
    assert repr(altmap.Trace("files", "files", "", "", {}, [StepRecord("start", {}, OK)])) == (
        "<Trace of 'files' on files >"
    )
    assert repr(altmap.Observation()) == "<Observation: no files>"
    assert repr(altmap.PfnRange(16, 32)) == "PfnRange(0x10, 0x20)"
    assert eval(repr(altmap.PfnRange(16, 32)), {"PfnRange": altmap.PfnRange}) == altmap.PfnRange(
        16, 32
    )


def test_a_notebook_shows_a_trace_as_its_map_and_numbers_as_tables(gib, sysroot):
    trace = altmap.predict(gib)
    assert re.match("<div [^>]*><svg ", trace._repr_html_())
    assert "after step 1, plug-dimm1" in trace._repr_html_()
    for each in (altmap.account(trace), trace.steps[0].observation):
        html = each._repr_html_()
        assert html.count("<table>") == 1
        assert "<th>MemFree</th>" in html
    assert "33,554" not in altmap.account(sysroot)._repr_html_()
    assert (
        "<td>-256.000 MiB</td><td>blocks that are offline</td>"
        in altmap.account(sysroot)._repr_html_()
    )


def test_a_notebook_shows_something_of_files_that_tell_little():
    nothing = altmap.Observation()
    assert nothing._repr_html_() == "<p>Observation: no files</p>"
    trace = altmap.Trace(
        "<b>", "files", "", "", {}, [StepRecord("start", {}, OK, observation=nothing)]
    )
    assert trace._repr_html_() == "<p>Trace of &#x27;&lt;b&gt;&#x27; on files </p>"


def test_an_account_is_its_levels(sysroot):
    found = altmap.account(sysroot)
    assert isinstance(found, Account)
    assert [level.name for level in found] == [level.name for level in found.levels]
    assert len(found) == 6
    assert str(found).startswith("memory accounting\nmemory blocks ")


# --- threads and processes -------------------------------------------------------------------


def test_threads_predict_as_one_does(gib):
    policies = ["existing", "opt-in", "rfc-2018", "per-block"] * 3
    alone = [altmap.predict(gib, policy=name).to_builtins() for name in policies]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda name: altmap.predict(gib, policy=name).to_builtins(), policies)
    assert list(together) == alone


def test_scenarios_and_traces_pass_between_processes(gib):
    trace = altmap.predict(gib)
    for each in (gib, trace):
        assert pickle.loads(pickle.dumps(each)) == each


# --- documents -------------------------------------------------------------------------------


def failures(page):
    """Run the Python blocks of a page in one namespace; return what is not as shown."""
    said, namespace = [], {"__name__": "page"}
    runner = doctest.DocTestRunner(verbose=False)
    for language, text in FENCED.findall(page):
        if language == "python":
            exec(text, namespace)
            continue
        test = doctest.DocTestParser().get_doctest(text, namespace, "page", None, 0)
        runner.run(test, out=said.append, clear_globs=False)
        namespace.update(test.globs)
    return "".join(said)


@pytest.mark.parametrize(
    "path", [path for path in DOCS if "```pycon" in path.read_text()], ids=lambda path: path.stem
)
def test_python_examples_print_as_shown(path):
    assert failures(path.read_text(encoding="utf-8")) == ""


def test_an_example_that_prints_something_else_is_noticed():
    assert "```pycon" in PAGE
    assert "Got:" in failures(PAGE.replace("existing     MemTotal", "existing     MemFree"))


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def notebook():
    """The script that runs a notebook's cells."""
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs/notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(outputs):
    """Return printed text and plain results of cells, and which of them have HTML."""
    return [
        (
            each.get("text"),
            each.get("data", {}).get("text/plain"),
            "text/html" in each.get("data", ""),
        )
        for cell in outputs
        for each in cell
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_its_cells_give(path, notebook):
    made = notebook.read(path)
    kept = [cell["outputs"] for cell in made["cells"] if cell["cell_type"] == "code"]
    assert texts(kept) == texts(notebook.outputs(made)), f"run python docs/notebook.py {path}"
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])


def test_there_is_a_notebook_with_a_map():
    assert any("<svg " in path.read_text(encoding="utf-8") for path in NOTEBOOKS)
