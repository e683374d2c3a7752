"""Commands that users of kubectl, docker, containerlab, Kathará and Mininet type here, and the equivalent verbs.

Data.
"""

from collections.abc import Mapping, Sequence

from testbed.cluster.kinds import KINDS

Advice = Sequence[tuple[str, str]]
"""Commands without the `testbed` prefix, each with its purpose; the purpose may be empty."""

KUBECTL: Mapping[str, Advice] = {
    "cordon": [("node drain NODE", "pods of Deployments move too")],
    "drain": [("node drain NODE", "")],
    "uncordon": [("node uncordon NODE", "")],
    "port-forward": [("forward POD 8080:80", "")],
    "create": [("apply -f FILE", "objects of a running lab"), ("up FILE", "a lab")],
    "expose": [("apply -f FILE", "with a Service in it")],
    "edit": [("apply -f FILE", "after you changed the file")],
    "patch": [("apply -f FILE", "after you changed the file")],
    "set": [("apply -f FILE", "after you changed the file")],
    "label": [("apply -f FILE", "with other labels in it")],
    "annotate": [("apply -f FILE", "with other annotations in it")],
    "replace": [("apply -f FILE", "")],
    "rollout": [
        ("apply -f FILE", "a changed template starts a rollout, a former one takes it back"),
        ("get deployments --watch", "its progress"),
        ("get replicasets", "its history"),
    ],
    "autoscale": [("scale deployment NAME --replicas N", "you choose the number of pods")],
    "attach": [("logs POD --follow", "its output"), ("shell POD", "a shell")],
    "debug": [("shell POD", ""), ("trace POD POD", "where packets end")],
    "cp": [("exec POD -- cat FILE", "into a file of yours"), ("exec POD -- tee FILE", "out of one")],
    "wait": [("apply -f FILE --wait", ""), ("get pods --watch", "")],
    "explain": [("init", "a cluster file with comments"), ("validate FILE --show-defaults", "every field of yours")],
    "api-resources": [("get --help", "")],
    "cluster-info": [("status", "")],
    "config": [
        ("status", "which labs run; TESTBED_LAB chooses one"),
        ("get pods -n NAMESPACE", "a namespace each time"),
    ],
    "version": [("--version", "")],
    "help": [("--help", "all verbs"), ("VERB --help", "one verb")],
}
DOCKER: Mapping[str, Advice] = {
    "ps": [("get pods", "")],
    "ls": [("status", "labs"), ("get pods", "pods"), ("topologies", "clusters to start")],
    "list": [("status", "labs"), ("get pods", "pods"), ("topologies", "clusters to start")],
    "inspect": [("describe pod NAME", "a pod"), ("describe node NAME", "a node"), ("status", "the lab")],
    "rm": [("delete pod NAME", "a pod"), ("node delete NODE", "a node"), ("down", "the lab")],
    "kill": [("fault pod kill POD", "a pod"), ("fault agent kill NODE", "an agent")],
    "stop": [("down", "the lab"), ("delete pod NAME", "a pod")],
    "start": [("up", "a lab"), ("apply -f FILE", "pods in a running lab")],
    "run": [("up", "a lab"), ("apply -f FILE", "pods in a running lab")],
    "compose": [("up FILE", ""), ("down", "")],
    "network": [("graph --write lab.svg", "a picture"), ("get routes", "routes and forwarding tables")],
    "top": [("exec NODE -- ps -e -o pid,pcpu,rss,args", "processes"), ("ui", "live traffic")],
    "stats": [("exec NODE -- ps -e -o pid,pcpu,rss,args", "processes"), ("ui", "live traffic")],
    "port": [("get services", "ports of Services"), ("forward POD 8080:80", "a port on this machine")],
    "prune": [("down --all", "")],
    "info": [("status", "the lab"), ("doctor", "this machine")],
}
CONTAINERLAB: Mapping[str, Advice] = {
    "deploy": [("up FILE", "")],
    "redeploy": [("down", "and then"), ("up FILE", "")],
    "destroy": [("down", "")],
    "generate": [("init", "a cluster file to start from"), ("up --nodes N", "a cluster without a file")],
    "save": [("get all --output yaml", "objects"), ("commands", "the kernel's settings as a script")],
    "tools": [("fault link delay A B TIME", "a slow cable"), ("fault --help", "everything that can be broken")],
    "netem": [("fault link delay A B TIME", ""), ("fault link loss A B PERCENT", "")],
}
KATHARA: Mapping[str, Advice] = {
    "lstart": [("up FILE", "")],
    "lclean": [("down", "")],
    "lrestart": [("down", "and then"), ("up FILE", "")],
    "linfo": [("status", "")],
    "connect": [("shell NODE", "a node, or a pod")],
    "vstart": [("node add NAME", "a node"), ("apply -f FILE", "a pod")],
    "vclean": [("node delete NODE", "a node"), ("delete pod NAME", "a pod")],
    "wipe": [("down --all", "")],
}
MININET: Mapping[str, Advice] = {
    "pingall": [("ping", "every pod from every pod")],
    "pingpair": [("ping SRC DST", "")],
    "iperfudp": [("iperf SRC DST --udp", "")],
    "net": [("graph --write lab.svg", "a picture"), ("cli", "Mininet's own prompt")],
    "dump": [("status", ""), ("describe node NAME", "")],
    "xterm": [("shell NODE", ""), ("shell --tmux A B", "two side by side")],
    "link": [("fault link down A B", "unplug a cable"), ("fault heal", "plug it in again")],
    "py": [("cli", "Mininet's own prompt, with py")],
    "clean": [("down --all", "")],
    "cleanup": [("down --all", "")],
}
OTHERS: Mapping[str, Advice] = {
    "ssh": [("shell NODE", "a node, or a pod")],
    "login": [("shell NODE", "a node, or a pod")],
    "dashboard": [("ui", "")],
    "tunnel": [("forward svc/NAME 8080:80", "")],
    "tcpdump": [("capture POD", ""), ("capture NODE:uplink udp port 8285", "with a filter")],
    "sniff": [("capture POD", "")],
    "wireshark": [("capture all --write lab.pcapng", "a file for Wireshark")],
    "traceroute": [("trace POD POD", "every interface on the path")],
    "tracepath": [("trace POD POD", "every interface on the path")],
    "curl": [("exec POD -- curl http://ADDRESS:PORT/", "")],
    "tail": [("logs POD --follow", "")],
    "ip": [("exec NODE -- ip address", "on a node, or in a pod")],
    "route": [("get routes", "")],
    "break": [("fault --help", "what can be broken")],
    "heal": [("fault heal", "")],
    "test": [("check", "the lab"), ("ping", "every pod from every pod")],
    "exercise": [("topologies", "the list"), ("up exercise/1", "the first")],
    "exercises": [("topologies", "the list"), ("up exercise/1", "the first")],
    "solve": [("check", "what is still wrong"), ("hint", "where to look")],
}
GROUPS: Mapping[str, Advice] = {
    "node cordon": KUBECTL["cordon"],
    "node list": [("get nodes", "")],
    "node ls": [("get nodes", "")],
    "node get": [("get nodes", "")],
    "node describe": [("describe node NAME", "")],
    "node rm": [("node delete NODE", "")],
    "node remove": [("node delete NODE", "")],
    "node stop": [("fault node crash NODE", "power is cut"), ("node drain NODE", "its pods move first")],
    "node restart": [("fault node reboot NODE", "the machine"), ("restart agent NODE", "its agent")],
    "restart deployment": [("apply -f FILE", "a changed template starts a rollout")],
    "restart node": [("fault node reboot NODE", "the machine"), ("restart agent NODE", "its agent")],
    "restart lab": [("down", "and then"), ("up FILE", "")],
}
"""Below a verb with subcommands."""
NOUNS: Mapping[str, Advice] = {
    word: [(f"get {kind.plural}", "")] for kind in KINDS for word in kind.words if word not in ("node", "events")
}
"""A kind of object in place of a verb; `node` and `events` are verbs."""

HABITS: Mapping[str, Advice] = {
    **NOUNS,
    **OTHERS,
    **MININET,
    **KATHARA,
    **CONTAINERLAB,
    **DOCKER,
    **KUBECTL,
    **GROUPS,
}


def advice(words: str) -> str | None:
    """Return the message with the equivalent of `words`; None if no other tool has this word."""
    known = HABITS.get(words.lower())
    if known is None:
        return None
    return "; ".join(f"testbed {command}{f': {purpose}' if purpose else ''}" for command, purpose in known)
