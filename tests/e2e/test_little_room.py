"""A lab where the host's /run is small: what it keeps there stays small, whatever its pods write."""

import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.e2e.command import Answer, run_verb
from tests.e2e.lab import fresh_name
from tests.waiting import wait_until

ROOM_MB, CYCLES = 64, 100
CHATTY = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: shell
    command: [sh, -c, "seq 150000; head -c 10M /dev/zero > /data/x; echo done {name}; sleep infinity"]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, emptyDir: {{}}}}]
"""


class SmallRun:
    """A shell's view of the host in which labs lie on a file system of a few MB; nobody else sees it."""

    def __init__(self, megabytes: int) -> None:
        mounts = f"mount --make-rprivate / && mount -t tmpfs -o size={megabytes}m,mode=0755 tmpfs /run/testbed"
        command = ["unshare", "--mount", "sh", "-c", f"mkdir -p /run/testbed && {mounts} && echo up && exec sleep 900"]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"up\n"
        self._enter = ("nsenter", "--target", str(self.holder.pid), "--mount", "--wd=/", "--")
        self.lab = fresh_name("small")

    def testbed(self, *words: str, stdin: str = "") -> Answer:
        """Return a verb about the lab."""
        return run_verb(*words, stdin=stdin, prefix=self._enter, extra={"TESTBED_LAB": self.lab}, limit_s=110)

    def must(self, *words: str, stdin: str = "") -> str:
        """Return a verb that has to succeed; its output."""
        answer = self.testbed(*words, stdin=stdin)
        assert answer.code == 0, answer
        return answer.out

    def last_line_of(self, pod: str) -> str:
        """Return the last line of a pod's log; empty if it has none so far."""
        return self.testbed("logs", pod, "--tail", "1").out

    def run(self, *command: str) -> str:
        """Return a command that has to succeed; its output."""
        done = subprocess.run([*self._enter, *command], capture_output=True, text=True, check=True)
        return done.stdout

    def used_kb(self) -> int:
        """Return what labs take of the room."""
        return int(self.run("df", "--output=used", "-k", "/run/testbed").split()[1])

    def files(self) -> list[str]:
        """Return every file there."""
        return self.run("find", "/run/testbed", "-mindepth", "1").split()


@pytest.fixture
def small_run(request: pytest.FixtureRequest) -> Iterator[SmallRun]:
    made = SmallRun(request.param)
    yield made
    made.testbed("down")
    made.holder.kill()
    made.holder.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("small_run", [ROOM_MB], indirect=True)
def test_a_hundred_pods_come_write_and_go_and_the_room_they_leave_is_as_before(small_run: SmallRun) -> None:
    small_run.must("up", "two_nodes")
    idle = small_run.used_kb()
    assert idle < 1024
    for number in range(CYCLES):
        name = f"chatty-{number}"
        small_run.must("apply", "-f", "-", "--wait", stdin=CHATTY.format(name=name))
        small_run.must("delete", "pod", name)
    assert small_run.used_kb() < idle + 2048
    assert len(small_run.files()) < 300
    assert small_run.must("logs", "chatty-99").splitlines()[-1] == "done chatty-99"
    assert small_run.testbed("logs", "chatty-1").code == 1, "it is forgotten"
    assert ", 0 lost" in small_run.must("ping")
    assert "chatty-0: " in small_run.must("commands")
    assert small_run.must("etcdctl", "put", "key", "value") == "OK\n"
    small_run.must("down")
    assert small_run.files() == []


@pytest.mark.parametrize("small_run", [ROOM_MB], indirect=True)
def test_a_pod_that_writes_as_much_as_it_can_leaves_the_rest_of_the_machine_its_room(small_run: SmallRun) -> None:
    small_run.must("up", "two_nodes")
    names = [f"chatty-{number}" for number in range(6)]
    endless = "while :; do seq 100000; done"
    manifests = "---\n".join(CHATTY.format(name=name).replace("seq 150000", endless) for name in names)
    small_run.must("apply", "-f", "-", stdin=manifests)
    for name in names:
        # Its log of 10 MB would be full twice by now.
        small_run.must("exec", "shell1", "--", "sh", "-c", "head -c 100M /dev/zero > /dev/shm/x; rm /dev/shm/x")
        wait_until(partial(small_run.last_line_of, name), timeout_s=60, what=f"{name} writes")
    assert small_run.used_kb() < (ROOM_MB // 2 + 4) * 1024
    small_run.must("exec", "node1", "--", "sh", "-c", "head -c 100M /dev/zero > /run/x; true")
    assert small_run.used_kb() < (ROOM_MB // 2 + 4) * 1024
    small_run.must("exec", "node1", "--", "rm", "/run/x")
    small_run.must("delete", *(f"pod/{name}" for name in names))
    assert small_run.used_kb() < 2048
    assert ", 0 lost" in small_run.must("ping")


@pytest.mark.parametrize("small_run", [8], indirect=True)
def test_up_reports_the_needed_space_and_makes_nothing(small_run: SmallRun) -> None:
    answer = small_run.testbed("up", "two_nodes")
    assert answer.code == 3
    assert answer.err.startswith("error: environment: too little room in /run/testbed (got 8 MiB of 8 MiB are free; ")
    assert "records and logs need 18 MiB; want " in answer.err
    assert len(answer.err.splitlines()) == 1
    assert small_run.files() == []
    doctor = {check["name"]: check for check in small_run.testbed("doctor", "-o", "json").json}
    assert not doctor["room in /run/testbed"]["ok"]
    assert doctor["memory"]["ok"]
