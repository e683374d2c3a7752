"""The lab's control socket: whoever misbehaves is told and closed, and nobody else notices."""

import array
import copy
import fcntl
import json
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.control import client
from testbed.control import server as control
from testbed.control.client import LabRecord, start_ticks
from testbed.control.questions import STATUS, Question
from testbed.control.server import MAX_ANSWERED, ControlServer, Request, Verb
from testbed.control.wire import CONTROL_SOCKET, LINE_LIMIT, PROTOCOL, WrittenOnce, line_of, send_line
from testbed.errors import EtcdFailed, TestbedError
from testbed.processes.readable import readable
from tests.waiting import wait_until

SERVED_S = 4.0
"""Within which others are served whatever one client does."""

Connect = Callable[[], socket.socket]


def _refuse(_request: Request) -> object:
    raise EtcdFailed("no such thing")


VERBS = (
    Verb(Question[Any]("echo"), lambda request: request.arguments, changes=False),
    Verb(Question[Any]("timed"), lambda request: repr(request.argument("limit_s", float)), changes=False),
    Verb(Question[Any]("typed"), lambda request: request.argument("number", int), changes=False),
    Verb(Question[Any]("refuse"), _refuse, changes=False),
    Verb(Question[Any]("bug"), lambda request: 1 // 0, changes=False),
    Verb(Question[Any]("value"), lambda request: int("seven"), changes=False),
    Verb(Question[Any]("kernel"), lambda request: os.listdir("/none"), changes=False),
    Verb(
        Question[Any]("streams"), lambda request: [os.fstat(stream).st_ino for stream in request.streams], changes=False
    ),
    Verb(Question[Any]("large"), lambda request: "x" * 5_000_000, changes=False),
    Verb(Question[Any]("stay"), lambda request: request.client_left(5), changes=False),
)


@contextmanager
def serving(path: Path) -> Iterator[Connect]:
    """Yield a server of our own; gives a maker of connections to it."""
    ControlServer(path, VERBS, os.getuid()).start()
    with ExitStack() as undo:

        def connected() -> socket.socket:
            connection = undo.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(path))
            connection.settimeout(5)
            return connection

        yield connected


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    with serving(tmp_path / "control.sock") as maker:
        yield maker


def answer(connection: socket.socket) -> dict[str, Any]:
    """Return the last line that the server sends before it closes the connection."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # closed with something of ours unread, behind its answer
    last: dict[str, Any] = json.loads(received.splitlines()[-1])
    assert last.pop("protocol") == PROTOCOL
    return last


def ask(connection: socket.socket, verb: str, **arguments: object) -> dict[str, Any]:
    send_line(connection, {"verb": verb, "arguments": arguments})
    return answer(connection)


def assert_others_are_served(connect: Connect) -> None:
    before = time.monotonic()
    assert ask(connect(), "echo", x=1) == {"result": {"x": 1}}
    assert time.monotonic() - before < SERVED_S


@pytest.mark.parametrize(
    ("sent", "error", "code"),
    [
        (b"garbage\n", "not a request of this lab", 2),
        (b"\x00\xff\xfe\n", "not a request of this lab", 2),
        (b"\n", "not a request of this lab", 2),
        (b"[]\n", "not a request of this lab", 2),
        (b"5\n", "not a request of this lab", 2),
        (b"[" * 50_000 + b"\n", "not a request of this lab", 2),
        (b'{"verb":["echo"]}\n', "not a request of this lab", 2),
        (b'{"verb":"nope"}\n', "not a request of this lab", 2),
        (b'{"verb":"echo","arguments":5}\n', "echo: arguments are not a mapping", 2),
        (b'{"verb":"typed","arguments":{"number":"x"}}\n', "number: wrong type", 2),
        (b'{"verb":"timed","arguments":{"limit_s":"60"}}\n', "limit_s: wrong type", 2),
        (b'{"verb":"timed","arguments":{"limit_s":true}}\n', "limit_s: wrong type", 2),
        (b'{"verb":"timed","arguments":{"limit_s":1' + 400 * b"0" + b"}}\n", "limit_s: wrong type", 2),
        (b'{"verb":"refuse"}\n', "no such thing", 4),
        (b'{"verb":"bug"}\n', "internal error: ZeroDivisionError", 1),
        (b'{"verb":"value"}\n', "internal error: ValueError", 1),
        (b'{"verb":"kernel"}\n', "[Errno 2] No such file or directory: '/none'", 1),
        (b'{"verb":"echo"}\n{"verb":"echo"}\n', "more than one request", 1),
    ],
)
@pytest.mark.row("B44")
def test_an_invalid_request_is_answered_with_an_error(connect: Connect, sent: bytes, error: str, code: int) -> None:
    connection = connect()
    connection.sendall(sent.replace(b'{"verb"', b'{"protocol":%d,"verb"' % PROTOCOL))
    told = answer(connection)
    assert told["error"].startswith(error)
    assert told["exit"] == code
    assert_others_are_served(connect)


@pytest.mark.parametrize(("given", "is_read"), [(60, "60.0"), (0, "0.0"), (2.5, "2.5"), (None, "None")])
def test_a_whole_number_of_seconds_is_a_number_of_seconds(connect: Connect, given: object, is_read: str) -> None:
    assert ask(connect(), "timed", limit_s=given) == {"result": is_read}


def test_a_lab_that_can_start_no_thread_says_so_and_answers_again_when_it_can(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "control client":
            raise RuntimeError("can't start new thread")
        start(thread)

    ours, theirs = os.pipe()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MAX_ANSWERED + 1):
            connection = connect()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs]))]
            connection.sendmsg([b'{"protocol":%d,"verb":"streams"}\n' % PROTOCOL], rights)
            told = answer(connection)
            assert told["error"].startswith("the lab can start no thread"), told
            assert told["exit"] == 1
    os.close(theirs)
    assert os.read(ours, 1) == b"", "the server holds the other end no longer"
    os.close(ours)
    assert_others_are_served(connect)


@pytest.mark.row("B44")
def test_half_a_request_is_reported_and_its_descriptors_are_closed(connect: Connect) -> None:
    connection, (ours, theirs) = connect(), os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs]))]
    connection.sendmsg([b'{"verb":"streams"'], rights)
    os.close(theirs)
    assert_others_are_served(connect)
    connection.shutdown(socket.SHUT_WR)
    assert answer(connection) == {"error": "half a request", "exit": 1}
    assert os.read(ours, 1) == b"", "the server holds the other end no longer"
    os.close(ours)


@pytest.mark.row("B44")
def test_a_line_of_a_megabyte_is_cut_short(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        connection.sendall(b"x" * 1_000_000)
    assert answer(connection) == {"error": f"a request over {LINE_LIMIT} bytes", "exit": 1}
    assert_others_are_served(connect)


@pytest.mark.row("B44")
def test_too_many_descriptors_are_refused_and_closed(connect: Connect) -> None:
    connection, (ours, theirs) = connect(), os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs] * 20))]
    connection.sendmsg([b'{"verb":"streams"}\n'], rights)
    os.close(theirs)
    assert answer(connection) == {"error": "a request with more than 3 descriptors", "exit": 1}
    assert os.read(ours, 1) == b""
    os.close(ours)


@pytest.mark.row("B44")
def test_a_thousand_idle_clients_cause_no_delay(connect: Connect) -> None:
    # Both ends are ours here, and the usual limit is 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        idle = [connect() for _ in range(1000)]
        assert_others_are_served(connect)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer(idle[0]) == {"error": "more than 64 clients without a request", "exit": 1}


@pytest.mark.row("B44")
def test_a_client_that_says_nothing_is_closed_after_a_while(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_TIMEOUT_S", 0.05)
    assert answer(connect()) == {"error": "no whole request within 0.05 s", "exit": 1}


@pytest.mark.row("B44")
def test_a_request_in_single_bytes_is_a_request(connect: Connect) -> None:
    connection = connect()
    for byte in b'{"protocol":%d,"verb":"echo"}\n' % PROTOCOL:
        connection.sendall(bytes([byte]))
    assert answer(connection) == {"result": {}}


def test_descriptors_reach_the_verb(connect: Connect) -> None:
    connection = connect()
    with Path(__file__).open("rb") as file:
        send_line(connection, {"verb": "streams"}, (file.fileno(),))
        assert answer(connection) == {"result": [os.fstat(file.fileno()).st_ino]}


def test_a_client_that_does_not_take_its_answer_loses_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "DELIVERY_LIMIT_S", 0.2)
    with serving(tmp_path / "control.sock") as connect:
        slow = connect()
        slow.sendall(json.dumps({"verb": "large", "protocol": PROTOCOL}).encode() + b"\n")
        given_up = select.poll()
        given_up.register(slow, 0)  # the server's end alone, nothing that could be read
        assert given_up.poll(30_000), "it was never given up"
        received = b""
        while part := slow.recv(1 << 20):
            received += part
        # The beginning of the answer, and nothing that is put behind it.
        assert received.startswith(b'{"protocol":')
        assert set(received[-1000:]) == {ord("x")}
        assert_others_are_served(connect)


def test_more_requests_than_may_run_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_ANSWERED", 2)
    with ExitStack() as undo:
        connect = undo.enter_context(serving(tmp_path / "control.sock"))
        running = [connect() for _ in range(2)]
        for connection in running:
            send_line(connection, {"verb": "stay"})
        refused = {"error": "2 requests are already running", "exit": 1}
        wait_until(lambda: ask(connect(), "echo") == refused, timeout_s=5, what="a refusal")
        for connection in running:
            connection.close()
        wait_until(lambda: "result" in ask(connect(), "echo"), timeout_s=5, what="room again")


@pytest.mark.parametrize(
    ("sent", "is_said"),
    [
        (b'{"verb":"echo"}\n', f"a newer testbed (protocol {PROTOCOL}; this command speaks 1)"),
        (b'{"verb":"gone","protocol":1}\n', f"a newer testbed (protocol {PROTOCOL}; this command speaks 1)"),
        (b'{"verb":"to come","protocol":99}\n', f"an older testbed (protocol {PROTOCOL}; this command speaks 99)"),
    ],
)
def test_a_client_of_another_version_is_refused_with_a_remedy(connect: Connect, sent: bytes, is_said: str) -> None:
    connection = connect()
    connection.sendall(sent)
    refused = answer(connection)
    assert (refused["exit"], is_said in refused["error"], "testbed down" in refused["error"]) == (1, True, True)


@pytest.mark.parametrize(("protocol", "word"), [(PROTOCOL - 1, "older"), (PROTOCOL + 1, "newer")])
def test_a_lab_of_another_version_is_not_asked(tmp_path: Path, protocol: int, word: str) -> None:
    lab = LabRecord("old", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, 0, protocol)
    with pytest.raises(TestbedError, match=rf"lab old: runs an? {word} testbed .*: testbed down --lab old$"):
        client.ask(lab, STATUS)


def test_an_answer_of_another_version_is_not_read(tmp_path: Path) -> None:
    """Its record may be of the right version, and be an old one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / CONTROL_SOCKET))
    listener.listen()

    def answer_as_before() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(LINE_LIMIT)
            connection.sendall(b'{"result": {"lab": "old"}}\n')

    answering = threading.Thread(target=answer_as_before)
    answering.start()
    lab = LabRecord("old", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, 0)
    with listener, pytest.raises(TestbedError, match=r"runs an older testbed \(protocol 1; this one speaks 2\)"):
        client.ask(lab, STATUS)
    answering.join()


def test_a_large_lab_waits_for_descriptors_that_select_does_not_take() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 2000)) as high:
        assert high.fileno() >= 2000
        assert not readable([high.fileno()], 0.01)
        theirs.send(b"x")
        assert readable([high.fileno()], 10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_written_once_reads_like_any_other_answer() -> None:
    plain: dict[str, Any] = {"metadata": {"name": "a", "labels": {"ü": '"'}}, "spec": [1, None, True], "status": {}}
    kept = WrittenOnce({**plain, "metadata": WrittenOnce(plain["metadata"])})
    for _ in range(2):
        for result in (kept, [kept, kept], [], [kept, plain], {"items": [kept]}):
            assert json.loads(line_of({"result": result})) == {"protocol": PROTOCOL, "result": result}
    assert line_of({"result": [kept]}) == line_of({"result": [plain]})


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, dict, lambda kept: {**kept}, lambda kept: kept | {}])
def test_a_changed_copy_of_what_is_written_once_has_a_text_of_its_own(copied: Callable[[Any], Any]) -> None:
    kept = WrittenOnce({"a": 1})
    assert kept.text == '{"a":1}'
    changed = copied(kept)
    changed["a"] = 2
    assert json.loads(line_of(changed))["a"] == 2
    assert type(changed) is dict
