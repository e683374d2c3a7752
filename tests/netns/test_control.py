"""Who may ask a lab for what; what its socket says to misbehaviour is in tests/unit/test_control.py."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.control.questions import Question
from testbed.control.server import ControlServer, Verb
from testbed.control.wire import PROTOCOL

pytestmark = pytest.mark.root

ROOT, OWNER, STRANGER = 0, 12345, 54321
VERBS = (
    Verb(Question[str]("look"), lambda _: "seen", changes=False),
    Verb(Question[str]("change"), lambda _: "changed"),
)
ASK = """
import json, os, sys
from pathlib import Path
from testbed.control.client import LabConnection, LabRecord
from testbed.control.questions import Question
from testbed.errors import TestbedError
os.setuid(int(sys.argv[2]))
with LabConnection(LabRecord("lab", 1, 1, Path(sys.argv[1]).parent, 0)) as lab:
    try:
        print(json.dumps(list(lab.ask(Question(sys.argv[3])))[-1]))
    except TestbedError as error:
        print(json.dumps({"error": str(error), "exit": error.exit_code}))
"""


@pytest.fixture
def path() -> Iterator[Path]:
    """Yield a server's socket that everybody can reach, as if somebody had opened the lab's directory to all."""
    # Not tmp_path: pytest's directories are open to root alone.
    directory = Path(tempfile.mkdtemp(prefix="ot-control-"))
    try:
        directory.chmod(0o755)
        path = directory / "control.sock"
        ControlServer(path, VERBS, OWNER).start()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_uid == OWNER
        path.chmod(0o666)
        yield path
    finally:
        shutil.rmtree(directory)


@pytest.mark.row("B44")
@pytest.mark.parametrize(
    ("uid", "verb", "answer"),
    [
        (ROOT, "look", {"protocol": PROTOCOL, "result": "seen"}),
        (ROOT, "change", {"protocol": PROTOCOL, "result": "changed"}),
        (OWNER, "look", {"protocol": PROTOCOL, "result": "seen"}),
        (OWNER, "change", {"error": "change: needs root (try: sudo testbed change …)", "exit": 3}),
        (STRANGER, "look", {"error": "not your lab (try with sudo)", "exit": 3}),
        (STRANGER, "change", {"error": "not your lab (try with sudo)", "exit": 3}),
    ],
)
def test_root_may_change_the_owner_may_look_and_nobody_else_is_heard(
    path: Path, uid: int, verb: str, answer: dict[str, object]
) -> None:
    words = [sys.executable, "-c", ASK, str(path), str(uid), verb]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, cwd="/")
    assert json.loads(done.stdout) == answer
    assert os.geteuid() == 0


LISTEN = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(sys.argv[1])
    listening.listen()
    print("listening", flush=True)
    while True:
        connection, _ = listening.accept()
        with connection:
            received = connection.recv(1000)
            print(len(received), flush=True)
"""


@pytest.mark.parametrize(("listener", "caller"), [(STRANGER, ROOT), (STRANGER, OWNER), (OWNER, ROOT)])
def test_nothing_is_asked_of_another_users_program_that_listens_in_a_labs_place(listener: int, caller: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ot-control-") as name:
        os.chmod(name, 0o777)
        path = Path(name) / "control.sock"
        listening = [sys.executable, "-c", LISTEN, str(path), str(listener)]
        with subprocess.Popen(listening, stdout=subprocess.PIPE, text=True, cwd="/") as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "listening\n"
                path.chmod(0o666)
                words = [sys.executable, "-c", ASK, str(path), str(caller), "look"]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd="/")
                assert f"uid {listener} answers on its control socket" in done.stderr
                assert server.stdout.readline() == "0\n", "nothing was sent"
            finally:
                server.kill()
