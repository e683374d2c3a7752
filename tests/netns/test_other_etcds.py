"""Agents with etcd of several versions, itself or behind its own grpc-proxy or gateway, and with tokens that expire."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.etcd.connection import Credentials
from agent.etcd.registry import EtcdRegistry
from tests.netns.agents import ENDPOINT, ETCD_ADDRESS, Agent, Underlay, ping
from tests.netns.etcd_programs import PROGRAMS
from tests.netns.etcd_server import FRONTS, EtcdProxy, EtcdServer, access_control, answers, front_command, jwt_option
from tests.netns.managed_node import ManagedNode
from tests.unit.fake_registry import NODE2, OTHER_SUBNET, check_registry
from tests.waiting import constantly, wait_until

pytestmark = pytest.mark.root

TTL_S = 6
TOKEN_TTL_S = 1
NODE = Credentials(user="node", password="pass")
BEHIND = ("itself", *FRONTS)
EVERYWHERE = pytest.mark.parametrize("behind", BEHIND)
EVERY_PROGRAM = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def token_flags(tokens: str, directory: Path) -> list[str]:
    """Return etcd's flags for tokens that live for a second."""
    if tokens == "jwt":
        return [jwt_option(directory, f"{TOKEN_TTL_S}s")]
    return ["--auth-token=simple", f"--auth-token-ttl={TOKEN_TTL_S}"]


def server_of(program: str, directory: Path, undo: ExitStack, flags: list[str] | None = None) -> EtcdServer:
    server = EtcdServer(directory, program=program)
    server.flags = flags or []
    undo.callback(server.stop)
    server.start()
    return server


def endpoint_of(server: EtcdServer, behind: str, program: str, directory: Path, undo: ExitStack) -> str:
    """Return the endpoint of the etcd itself, or of what was started before it."""
    if behind == "itself":
        return server.endpoint
    front = EtcdProxy(directory, server.endpoint, behind, program)
    undo.callback(front.stop)
    front.start()
    return front.endpoint


@EVERY_PROGRAM
@EVERYWHERE
def test_a_registry_keeps_what_every_registry_keeps(program: str, behind: str, tmp_path: Path, undo: ExitStack) -> None:
    server = server_of(program, tmp_path, undo)
    registry = EtcdRegistry([endpoint_of(server, behind, program, tmp_path, undo)])
    undo.callback(registry.close)
    # It listens before it has elected itself, and a registry waits for an answer no longer than 3 s.
    wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers")
    check_registry(registry)


@pytest.mark.slow
@EVERY_PROGRAM
@EVERYWHERE
@pytest.mark.parametrize("tokens", ["simple", "jwt"])
def test_a_node_whose_tokens_expire_keeps_its_lease_and_sees_new_peers(
    program: str, behind: str, tokens: str, tmp_path: Path, undo: ExitStack
) -> None:
    server = server_of(program, tmp_path, undo, token_flags(tokens, tmp_path))
    access_control(server.etcdctl)
    server.etcdctl_flags = ["--user=root:secret"]
    node = ManagedNode(
        endpoint_of(server, behind, program, tmp_path, undo), "192.168.8.227", ttl_s=TTL_S, credentials=NODE
    )
    undo.callback(node.stop)
    lease = node.acquire()
    assert lease is not None
    node.start()
    wait_until(lambda: node.manager.revision > 0, timeout_s=30, what="the first list")
    constantly(lambda: left_s(node) > 0, for_s=TTL_S + 2, what="the lease has time left")
    peer = EtcdRegistry([server.endpoint], credentials=NODE)
    undo.callback(peer.close)
    peer.create(OTHER_SUBNET, NODE2, ttl_s=600)
    wait_until(lambda: node.peers == [str(OTHER_SUBNET)], timeout_s=3, what="the new peer")
    assert node.manager.lease == lease, "never lost and taken again"
    assert node.fenced == []


def left_s(node: ManagedNode) -> float:
    left = node.manager.seconds_left()
    assert left is not None
    return left


class Nodes:
    """Two agents whose etcd knows users, with tokens that live for a second, and a pod on each."""

    def __init__(self, underlay: Underlay, program: str, behind: str, tokens: str) -> None:
        self.underlay = underlay
        underlay.start_etcd(*token_flags(tokens, underlay.directory), program=program)
        underlay.write_config()
        access_control(lambda *words: underlay.etcdctl(*words).stdout)
        self.endpoint = ENDPOINT
        if behind != "itself":
            self.endpoint = f"http://{ETCD_ADDRESS}:23790"
            self._start(front_command(behind, ENDPOINT, f"{ETCD_ADDRESS}:23790", underlay.directory, program))
        self.first, self.second = (self.agent(number) for number in (1, 2))
        self.pod = underlay.pod(self.first, "a", f"{self.address(self.first)}/24")
        underlay.pod(self.second, "b", f"{self.address(self.second)}/24")

    def agent(self, number: int) -> Agent:
        flags = (f"--etcd-endpoints={self.endpoint}", "--etcd-username=node", "--etcd-password=pass")
        agent = self.underlay.agent(
            f"node{number}", f"192.168.8.{226 + number}", *flags, f"--subnet-lease-ttl={TTL_S}s"
        )
        agent.wait_ready()
        return agent

    @staticmethod
    def address(agent: Agent) -> str:
        """Return the address of the pod on a node."""
        return agent.subnet().replace(".0/24", ".2")

    def _start(self, command: list[str]) -> None:
        with (self.underlay.directory / "front.log").open("wb") as log:
            front = subprocess.Popen(
                ["ip", "netns", "exec", self.underlay.etcd_netns, *command], stdout=log, stderr=log
            )
        self.underlay.undo.callback(front.wait, 10)
        self.underlay.undo.callback(front.kill)

    def fine(self) -> bool:
        """Return whether both are ready with time left, and the pods reach each other."""
        ready = all(one.get("/readyz")[0] == 200 for one in (self.first, self.second))
        left: float = self.first.state()["lease"]["seconds_left"]
        return ready and left > 0 and ping(self.pod, self.address(self.second)).returncode == 0


@EVERY_PROGRAM
@EVERYWHERE
@pytest.mark.parametrize("tokens", ["simple", pytest.param("jwt", marks=pytest.mark.slow)])
def test_agents_whose_tokens_expire_stay_ready_and_meet_a_third(
    program: str, behind: str, tokens: str, tmp_path: Path, undo: ExitStack
) -> None:
    nodes = Nodes(Underlay(tmp_path, f"oe{os.getpid()}-", undo), program, behind, tokens)
    constantly(nodes.fine, for_s=TTL_S + 2, what="ready, with time left, and connected")
    third = nodes.agent(3)
    nodes.underlay.pod(third, "c", f"{nodes.address(third)}/24")
    wait_until(
        lambda: ping(nodes.pod, nodes.address(third)).returncode == 0, timeout_s=30, what="the third node's pod answers"
    )
    assert not re.search(r"WARNING .*(auth|token|denied|permission|expired)", nodes.first.log)
