"""Whether programs that the cluster file names can be run inside the lab, which has some directories for itself."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from testbed.cluster.agent_words import named
from testbed.cluster.cluster_document import AgentSpec, CniSpec
from testbed.cluster.spec import Cluster
from testbed.cni.files import wrong_files
from testbed.places import ROOT

PRIVATE_TMPFS = {
    "/run": "size=64m,mode=0755",
    "/tmp": "size=1g,mode=1777",
    "/var/tmp": "size=1g,mode=1777",
    "/dev/shm": "size=64m,mode=1777",
}
"""The lab's own file systems, with their options."""
NODES_OWN = "/var/lib"
"""CNI plugins keep state there, so each node with plugins has its own."""
DEBIANS_ETCD = "etcd"
"""`doctor` looks for it."""
OURS = frozenset({ROOT, Path(sys.prefix).resolve()})
"""Directories that our programs need: the clone or site-packages, and its Python. They stay visible anywhere."""


def unusable_programs(cluster: Cluster) -> list[str]:
    """Return one line for each program, or file of an agent's command or of CNI, that the lab would not find, or that
    root must not run.
    """
    etcd = _why_no_program(cluster.etcd.program) if cluster.etcd.program != DEBIANS_ETCD else None
    given = [("agent", cluster.agent)]
    given += [(f"nodes.{name}.agent", node.agent) for name, node in cluster.nodes.items() if node.agent is not None]
    agents = [line for path, agent in given for line in _unusable(path, agent)]
    agents += _unusable_cni("cni", cluster.cni)
    for name, node in cluster.nodes.items():
        agents += _unusable_cni(f"nodes.{name}.cni", node.cni)
    return agents if etcd is None else [f"etcd.program: {etcd}", *agents]


def _unusable(path: str, agent: AgentSpec) -> Iterator[str]:
    if agent.command is None:
        return
    program, *words = agent.command
    if not named([program]) and (wrong := _why_no_program(program)) is not None:
        yield f"{path}.command: {wrong}"
    for word in words:
        file = word.partition("=")[2] or word
        if file.startswith("/") and os.path.exists(file) and (top := _hidden_by(Path(file))) is not None:
            yield f"{path}.command: {_hidden(file, top)}"


def _unusable_cni(path: str, cni: CniSpec | None) -> list[str]:
    if cni is None:
        return []
    hidden = [
        f"{path}.{field}: {_hidden(file, top)}"
        for field, file in [("conflist", cni.conflist), *(("plugins", directory) for directory in cni.plugins)]
        if (top := NODES_OWN if Path(file).resolve().is_relative_to(NODES_OWN) else _hidden_by(Path(file))) is not None
    ]
    return hidden or [f"{path}.{line}" for line in wrong_files(cni, as_root=os.geteuid() == 0)]


def _why_no_program(program: str) -> str | None:
    if "/" not in program:
        found = shutil.which(program)
        if found is None:
            return f"no such program on PATH (got {program}; want its path)"
        program = found
    if not program.startswith("/"):
        return f"not an absolute path (got {program}; want {Path(program).absolute()})"
    file = Path(program)
    if (top := _hidden_by(file)) is not None:
        return _hidden(program, top)
    if not file.is_file():
        return f"no such program (got {program}; want a file that can be run)"
    if not os.access(file, os.X_OK):
        return f"not executable (got {program}; want chmod +x, or its interpreter before it)"
    return None


def _hidden_by(file: Path) -> str | None:
    """Return the lab's own directory that hides the file, by its name or by where its links lead."""
    for path in (file, file.resolve()):
        if not any(path.is_relative_to(ours) for ours in OURS):
            for top in PRIVATE_TMPFS:
                if path.is_relative_to(top):
                    return top
    return None


def _hidden(file: str, top: str) -> str:
    return f"the lab has a {top} of its own, without this file (got {file}; want it elsewhere, such as below /opt)"
