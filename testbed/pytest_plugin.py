"""pytest fixtures that give a test a running lab, and collect everything needed to understand its failure.

    import pytest

    @pytest.mark.lab("two_nodes")
    def test_pods_of_two_nodes_reach_each_other(lab):
        assert lab.ping("shell1", "echo2").lost == 0

Loaded by pytest itself (entry point pytest11); costs nothing until a test asks for a lab. docs/testing.md explains
fixtures, options and bundles.
"""

import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from testbed.control.client import running_labs
from testbed.errors import TestbedError
from testbed.places import DEFAULT_CLUSTER
from testbed.testing.bundle import Bundle, write_bundle
from testbed.testing.lab_capture import Captures
from testbed.testing.lab_choice import (
    ClusterChoice,
    LabNotUp,
    choose,
    fresh_name,
    hand_over,
    open_shell,
    start_lab,
    stop_lab,
)
from testbed.testing.lab_handle import LabHandle
from testbed.testing.lab_runs import BundleDirectory, RunName

MARKER = "lab(cluster): the cluster of the fixtures `lab` and `lab_per_test`: a name, a path, YAML text or dicts"
MODULE_VARIABLE = "LAB"
BUNDLE_PROPERTY = "lab_bundle"
FINDING_PROPERTY = "lab_finding"
NewLab = Callable[..., contextlib.AbstractContextManager[LabHandle]]

_labs_key = pytest.StashKey["LabsOfTheRun"]()
_requests_key = pytest.StashKey[dict[LabHandle, int]]()
_bundles_key = pytest.StashKey[dict[str, Bundle]]()
"""A test's bundles, by lab."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for labs of tests."""
    group = parser.getgroup("testbed labs")
    group.addoption("--lab-pcap", action="store_true", help="capture packets during each test; kept when it fails")
    group.addoption("--lab-keep", action="store_true", help="leave labs up after the run")
    group.addoption("--lab-shell-on-failure", action="store_true", help="open a shell in the lab of a failed test")
    group.addoption(
        "--lab-pause", action="store_true", help="stop at a failed test, its lab alive, until Enter is pressed"
    )
    group.addoption(
        "--lab-bundles",
        metavar="DIR",
        type=Path,
        help="directory of bundles about failed tests [default: .lab-bundles in pytest's rootdir, the last 3 runs]",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Follow the tests of this run."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("lab_pause") and not _has_terminal(config):
        raise pytest.UsageError("--lab-pause: standard input is no terminal (want a terminal, or --lab-keep)")
    labs = LabsOfTheRun(config)
    config.stash[_labs_key] = labs
    config.pluginmanager.register(labs, "labs of the run")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Pass the mark of a test function to the fixture `lab`, which belongs to its module and cannot see it."""
    marker = metafunc.definition.get_closest_marker("lab")
    by_hand = [name for mark in metafunc.definition.iter_markers("parametrize") for name in _names_in(mark)]
    if marker is not None and "lab" in metafunc.fixturenames and "lab" not in by_hand:
        choice = _choice_of(marker, metafunc.definition)
        metafunc.parametrize("lab", [choice], indirect=True, ids=[pytest.HIDDEN_PARAM])


def _has_terminal(config: pytest.Config) -> bool:
    """Report whether standard input is a terminal, behind pytest's capture."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        return os.isatty(0)
    capture.suspend_global_capture(in_=True)
    try:
        return os.isatty(0)
    finally:
        capture.resume_global_capture()


def _names_in(parametrize: pytest.Mark) -> list[str]:
    names = parametrize.args[0] if parametrize.args else parametrize.kwargs.get("argnames", ())
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _choice_of(marker: pytest.Mark, item: pytest.Item) -> ClusterChoice:
    if len(marker.args) != 1 or marker.kwargs:
        got = f"{len(marker.args)} and {len(marker.kwargs)} by keyword"
        wrong = f"takes one argument (got {got}; want a name, a path, YAML text or dicts)"
        pytest.fail(f"{item.nodeid}: @pytest.mark.lab: {wrong}", pytrace=False)
    return _choose(marker.args[0], item.path.parent, f"{item.nodeid}: @pytest.mark.lab")


def _choose(wanted: object, beside: Path, where: str) -> ClusterChoice:
    try:
        return choose(wanted, beside)
    except ValueError as error:
        wrong = f"{where}: {error}"
    # Out here, or pytest would show the cause as well, with the same text.
    pytest.fail(wrong, pytrace=False)


def _chosen_for(request: pytest.FixtureRequest) -> ClusterChoice:
    """Return the choice by parametrisation, which also delivers the mark, by the module's LAB, or the default."""
    wanted = getattr(request, "param", None) or getattr(request.module, MODULE_VARIABLE, DEFAULT_CLUSTER)
    return _choose(wanted, request.path.parent, f"fixture {request.fixturename}")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[LabHandle]:
    """Provide a lab that the tests of a module share; tests that ask for another cluster get another one."""
    with request.config.stash[_labs_key].running(_chosen_for(request)) as handle:
        yield handle


@pytest.fixture
def lab_per_test(request: pytest.FixtureRequest) -> Iterator[LabHandle]:
    """Provide a lab for this test alone, which may change it freely."""
    marker = request.node.get_closest_marker("lab")
    choice = _chosen_for(request) if marker is None else _choice_of(marker, request.node)
    with request.config.stash[_labs_key].running(choice) as handle:
        yield handle


@pytest.fixture(scope="session")
def new_lab(request: pytest.FixtureRequest) -> NewLab:
    """Make a lab for as long as a with statement: `with new_lab(cluster, *options of up) as lab`.

    For a second lab in a test, and for your own fixtures of any scope. A path is relative to pytest's rootdir.
    """
    labs = request.config.stash[_labs_key]
    root = request.config.rootpath
    return lambda cluster, *options: labs.running(_choose(cluster, root, "new_lab"), *options)


class LabsOfTheRun:
    """Brings labs up and down, and inspects those of failed tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._run = RunName.of(getattr(config, "workerinput", None))
        self._bundles = BundleDirectory(config.getoption("lab_bundles"), config.rootpath, self._run)
        self._keeps: bool = config.getoption("lab_keep")
        self._open: list[LabHandle] = []
        self._captured: dict[LabHandle, Path] = {}
        self._item: pytest.Item | None = None
        self._lacks_root = False

    @contextlib.contextmanager
    def running(self, choice: ClusterChoice, *options: str) -> Iterator[LabHandle]:
        """Provide a running lab; fail the test, with the output of `up`, if it does not become ready."""
        self._need_root()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, _as_interrupt)
        lab = self._start(choice, options)
        self._open.append(lab)
        try:
            yield lab
        except (KeyboardInterrupt, GeneratorExit, pytest.skip.Exception):
            raise
        except BaseException as failure:
            # A with statement in the test itself: once it ends, there is no lab to inspect.
            if self._item is not None and not self._item.get_closest_marker("xfail"):
                self._bundle(self._item, lab, f"{type(failure).__name__}: {failure}")
            raise
        finally:
            self._open.remove(lab)
            if not self._keeps:
                stop_lab(lab)

    def _need_root(self) -> None:
        if os.geteuid() != 0:
            self._lacks_root = True
            pytest.fail(
                f"this test needs a lab, and a lab needs root (got uid {os.geteuid()}; {self._as_root()})", False
            )

    def _as_root(self) -> str:
        return f"want: sudo {sys.executable} -m pytest {shlex.join(self._config.invocation_params.args)}".rstrip()

    def _start(self, choice: ClusterChoice, options: tuple[str, ...]) -> LabHandle:
        name = fresh_name(self._run.lab_prefix)
        try:
            with tempfile.TemporaryDirectory(prefix="lab-") as directory:
                return start_lab(choice, name, Path(directory), *options)
        except LabNotUp as failure:
            text = str(failure)
            if failure.lab is not None:
                if self._item is not None:
                    text += f"\nbundle: {self._bundle(self._item, failure.lab, text).directory}"
                if not self._keeps:
                    stop_lab(failure.lab)
        pytest.fail(text, pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Record each lab's request count before this test."""
        self._item = item
        item.stash[_requests_key] = {lab: lab.requests for lab in self._open}
        item.stash[_bundles_key] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Capture packets while the test runs, if requested."""
        with contextlib.ExitStack() as stack:
            for lab in self._arguments_of(item) if self._config.getoption("lab_pcap") else ():
                directory = Path(tempfile.mkdtemp(prefix="lab-pcap-"))
                self._captured[lab] = directory
                # The lab does not answer: the test will report it.
                with contextlib.suppress(TestbedError):
                    captures = Captures(lab, directory)
                    stack.callback(captures.stop)
                    captures.start()
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write a bundle about each lab of a failed test, while the lab is still as the test left it."""
        report = yield
        if report.failed:
            bundles = item.stash[_bundles_key]
            for lab in self._used_by(item):
                if lab.name not in bundles:
                    self._bundle(item, lab, report.longreprtext)
            for name, bundle in bundles.items():
                report.sections.append((f"lab {name}", _section(bundle)))
                report.user_properties.append((BUNDLE_PROPERTY, str(bundle.directory)))
                report.user_properties += [(FINDING_PROPERTY, line) for line in bundle.findings]
        item.user_properties += [entry for entry in report.user_properties if entry not in item.user_properties]
        if report.when == "call":
            self._drop_captures()
        return report

    def pytest_sessionfinish(self) -> None:
        """Remove the captures of a test that was interrupted: it has no report."""
        self._drop_captures()

    def _drop_captures(self) -> None:
        for directory in self._captured.values():
            shutil.rmtree(directory, ignore_errors=True)
        self._captured.clear()

    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector) -> None:
        """Pause at a failed test, or open a shell in its lab, if there is a terminal."""
        pauses, opens = (self._config.getoption(name) for name in ("lab_pause", "lab_shell_on_failure"))
        if not (pauses or opens) or not isinstance(node, pytest.Item):
            return
        capture = self._config.pluginmanager.getplugin("capturemanager")
        capture.suspend_global_capture(in_=True)
        try:
            for lab in self._used_by(node) if os.isatty(0) else ():
                if opens:
                    print(f"\n\n{node.nodeid} failed; this is lab {lab.name} (exit the shell to continue)")
                    open_shell(lab)
                if pauses:
                    print(_paused(node, lab))
                    # Ctrl-D goes on too.
                    with contextlib.suppress(EOFError):
                        input("press Enter to go on: ")
        finally:
            capture.resume_global_capture()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report bundles, kept labs, and how to run tests that need root."""
        reports = [report for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])]
        failed = [report for report in reports if isinstance(report, pytest.TestReport)]  # others are of collecting
        bundles = [(r.nodeid, path) for r in failed for name, path in r.user_properties if name == BUNDLE_PROPERTY]
        kept = [lab.name for lab in running_labs() if self._run.is_ours(lab.name)] if self._keeps else []
        if bundles or kept or self._lacks_root:
            terminalreporter.section("testbed labs")
        for test, path in bundles:
            terminalreporter.line(f"bundle of {test}: {path}")
        for name in kept:
            terminalreporter.line(f"lab {name} is kept; look: sudo testbed status --lab {name}")
            terminalreporter.line(f"  sudo testbed shell --lab {name}; then: sudo testbed down --lab {name}")
        if self._lacks_root:
            terminalreporter.line(f"labs need root; {self._as_root()}", red=True)

    def _bundle(self, item: pytest.Item, lab: LabHandle, reason: str) -> Bundle:
        try:
            directory = self._bundles.place_for(item.nodeid, lab.name)
            if (captures := self._captured.get(lab)) is not None:
                shutil.move(captures, directory / "captures")
                del self._captured[lab]
            bundle = write_bundle(lab, directory, title=item.nodeid, reason=reason)
            hand_over(directory)
        except OSError as failure:
            # A full disk, say. In this hook it would end the run, with its labs up.
            bundle = Bundle(self._bundles.directory, (f"the bundle cannot be written: {failure}",), ())
        item.stash[_bundles_key][lab.name] = bundle
        return bundle

    def _arguments_of(self, item: pytest.Item) -> list[LabHandle]:
        """Return labs among the fixtures of a test, each once."""
        fixtures = getattr(item, "funcargs", {}).values()
        return list(dict.fromkeys(value for value in fixtures if isinstance(value, LabHandle)))

    def _used_by(self, item: pytest.Item) -> list[LabHandle]:
        """Return a test's labs: its fixtures, and others that it has used; not those already taken down."""
        before = item.stash.get(_requests_key, {})
        asked = [lab for lab in self._open if lab.requests != before.get(lab, 0)]
        mine = dict.fromkeys([*self._arguments_of(item), *asked])
        return [lab for lab in mine if lab.record.rundir.exists()]


def _as_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Treat a request to end the run (time limit, closed terminal) as Ctrl-C, so that its labs are taken down."""
    raise KeyboardInterrupt


def _paused(item: pytest.Item, lab: LabHandle) -> str:
    """Return the text shown while the lab waits: its findings, and how to inspect it."""
    bundle = item.stash[_bundles_key].get(lab.name)
    looks = [f"sudo testbed {verb} --lab {lab.name}" for verb in ("status", "check", "shell")]
    lines = [f"{item.nodeid} failed; lab {lab.name} is as the test left it", *(bundle.findings if bundle else ())]
    return "\n\n" + "\n".join([*lines, "look, in another terminal:", *(f"  {look}" for look in looks)])


def _section(bundle: Bundle) -> str:
    lines = [f"bundle: {bundle.directory}", *bundle.findings]
    if bundle.problems:
        lines.append(f"{len(bundle.problems)} parts are missing (README.txt there lists them)")
    return "\n".join(lines)
