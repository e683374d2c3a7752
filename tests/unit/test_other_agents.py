"""Which processes are agents, by their command lines and environments."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.node.other_agents import RunningAgent, read_agent
from agent.options.command_line import parse_options

USUAL = ("/coreos.com/network", Path("/run/flannel/subnet.env"))


@pytest.mark.parametrize(
    ("argv", "environ", "found"),
    [
        (["/opt/bin/flanneld"], {}, RunningAgent("flanneld", *USUAL)),
        (["flanneld", "-iface=eth0", "-etcd-prefix", "a/"], {}, RunningAgent("flanneld", "a", USUAL[1])),
        (["flanneld", "--etcd-prefix=//coreos.com//network/"], {}, RunningAgent("flanneld", *USUAL)),
        (["flanneld", "--etcd-prefix=/"], {}, RunningAgent("flanneld", "/", USUAL[1])),
        (["flanneld", "--kube-subnet-mgr", "--ip-masq"], {}, RunningAgent("flanneld", *USUAL)),
        (["flanneld"], {"FLANNELD_SUBNET_FILE": "/run/a"}, RunningAgent("flanneld", USUAL[0], Path("/run/a"))),
        (["/usr/bin/python3", "-m", "agent", "--v=1"], {}, RunningAgent("overlay-agent", *USUAL)),
        (["/usr/bin/python3", "-P", "-m", "agent", "--v=1"], {}, RunningAgent("overlay-agent", *USUAL)),
        (["python", "/opt/x/.venv/bin/overlay-agent"], {}, RunningAgent("overlay-agent", *USUAL)),
        (["overlay-agent", "cleanup"], {}, None),
        (["python", "-m", "agent", "bridge", "--bridge=b"], {}, None),
        (["python", "-P", "-m", "agent", "cleanup"], {}, None),
        (["python", "-m", "agents"], {}, None),
        (["grep", "flanneld"], {}, None),
        (["vi", "/etc/flanneld"], {}, None),
    ],
)
def test_an_agent_is_known_by_its_command_line(
    argv: list[str], environ: Mapping[str, str], found: RunningAgent | None
) -> None:
    assert read_agent(argv, environ) == found


@pytest.mark.parametrize(
    ("flags", "meets"),
    [
        ([], True),
        (["--etcd-prefix=/b"], True),
        (["--subnet-file=/run/b"], True),
        (["--etcd-prefix=/b", "--subnet-file=/run/b"], False),
    ],
)
def test_agents_of_two_networks_with_files_of_their_own_run_side_by_side(flags: list[str], *, meets: bool) -> None:
    assert RunningAgent("flanneld", *USUAL).meets(parse_options(flags, {})) is meets


@pytest.mark.parametrize("prefix", ["a", "a/", "/a", "/a//b/"])
def test_agents_with_one_prefix_meet_however_it_is_written(prefix: str) -> None:
    flags = [f"--etcd-prefix={prefix}"]
    other = read_agent(["flanneld", *flags, "--subnet-file=/run/other"], {})
    assert other is not None
    assert other.meets(parse_options(flags, {}))
