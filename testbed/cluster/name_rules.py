"""Rules for names, paths and numbers of a cluster file; each raises an error that states the rule.

No name reaches a shell, but node names become interface names and Mininet host names, and pod names become host names.
"""

import posixpath
import re
from ipaddress import IPv4Address, ip_address

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from testbed.cluster.free_values import LAST_PORT

MAX_LABEL = 63  # RFC 1123 §2.1 with RFC 1035 §2.3.4: one label of a host name
MAX_OBJECT_NAME = 253  # RFC 1123 §2.1: a host name
MAX_NODE_NAME = 9  # an interface name has 15 characters (IFNAMSIZ) and `-eth10` takes 6

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NODE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_INTERFACE = re.compile(r".*-eth[0-9]+")
_TAKEN_BY_THE_LAB = re.compile(r"etcd[0-9]*|s[0-9]+|gw|gateway|router|lab|all")
_SWITCH = re.compile(r"s[0-9]+")
_LABEL_PART = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_ENVIRONMENT = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def wrong(what: str, got: object, want: str) -> PydanticCustomError:
    """Return a validator's error, which is shown as `PATH: WHAT (got GOT; want WANT)`."""
    if isinstance(got, str):
        # A value from a command line may not be text, and pydantic's message must be.
        got = got.encode(errors="backslashreplace").decode()
    return PydanticCustomError("spec", "{what} (got {got}; want {want})", {"what": what, "got": got, "want": want})


def within(lowest: int, highest: int) -> AfterValidator:
    """Return a check for a number from `lowest` to `highest`."""

    def check(number: int) -> int:
        if not lowest <= number <= highest:
            raise wrong("out of range", number, f"{lowest} to {highest}")
        return number

    return AfterValidator(check)


def check_label_name(name: str) -> str:
    """Check a name of a pod, container, volume or cluster (RFC 1123 label)."""
    if not _LABEL.fullmatch(name) or len(name) > MAX_LABEL:
        want = f"a-z, 0-9 and - between, at most {MAX_LABEL} characters"
        raise wrong("not a name", name if len(name) <= MAX_LABEL else f"{len(name)} characters", want)
    return name


def check_node_name(name: str) -> str:
    """Check a name of a node: `NAME-eth0` must be an interface name and NAME a Mininet host."""
    _check_machine_name(name, "node")
    if _TAKEN_BY_THE_LAB.fullmatch(name):
        raise wrong("a name that the lab uses itself", name, "another name, such as node1")
    return name


def check_switch_name(name: str) -> str:
    """Check a name of a switch or router: `NAME-eth10` must be an interface name."""
    _check_machine_name(name, "switch")
    if _TAKEN_BY_THE_LAB.fullmatch(name) and not _SWITCH.fullmatch(name):
        raise wrong("a name that the lab uses itself", name, "another name, such as s1")
    return name


def _check_machine_name(name: str, kind: str) -> None:
    if not _NODE.fullmatch(name) or len(name) > MAX_NODE_NAME:
        want = f"a letter, then a-z, 0-9 and - between, at most {MAX_NODE_NAME} characters"
        raise wrong(f"not a {kind} name", name, want)
    if _INTERFACE.fullmatch(name):
        raise wrong("a name of an interface", name, "a name that does not end with -eth and a number")


def check_port_name(name: str) -> str:
    """Check a name of a port (RFC 6335 service name)."""
    if not _LABEL.fullmatch(name) or len(name) > 15 or name.isdigit() or "--" in name:
        raise wrong(
            "not a port name", name, "a-z, 0-9 and single - between, one letter at least, at most 15 characters"
        )
    return name


def check_port_or_name(value: object) -> int | str:
    """Check a number or a name of a port, as Kubernetes accepts both."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong("not a port", value, "a number from 1 to 65535, or the name of a port")
    if isinstance(value, str):
        return check_port_name(value)
    if not 1 <= value <= LAST_PORT:
        raise wrong("out of range", value, f"1 to {LAST_PORT}")
    return value


def check_count_or_percent(value: object) -> int | str:
    """Check a number of pods, or a percentage such as 25%."""
    want = "a number from 0 on, or a share such as 25%"
    if isinstance(value, str) and re.fullmatch(r"(100|[0-9]{1,2})%", value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wrong("neither a number of pods nor a share", value, want)
    return value


def check_address(text: str) -> str:
    """Check an IPv4 address; it stays text, as in a manifest."""
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise wrong("not an IPv4 address", text, "four numbers such as 192.168.8.227") from None


CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""Linux' capabilities; the position of each is its number."""


def check_capability(name: str) -> str:
    """Check a capability without CAP_, or ALL; return it in capital letters."""
    found = name.upper().removeprefix("CAP_")
    if found != "ALL" and found not in CAPABILITIES:
        raise wrong("no such capability", name, "ALL, or one of capabilities(7), such as NET_BIND_SERVICE")
    return found


def check_any_address(text: str) -> str:
    """Check an IPv4 or IPv6 address; it stays text."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise wrong("not an address", text, "one such as 10.0.90.2 or fd00:a::2") from None


def check_host_name(name: str) -> str:
    """Check a name of one or more labels, as in /etc/hosts."""
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        raise wrong("not a host name", name, "labels of a-z, 0-9 and -, with points between them")
    return name


def check_field_path(path: str) -> str:
    """Check a path of a pod's field that a variable can refer to."""
    if path not in FIELD_PATHS and not _FIELD_OF_MAPPING.fullmatch(path):
        raise wrong("no such field for a variable", path, f"{', '.join(FIELD_PATHS)} or metadata.labels['KEY']")
    return path


FIELD_PATHS = (
    *("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName"),
    *("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
)
_FIELD_OF_MAPPING = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


def check_file_field(path: str) -> str:
    """Check a path of a pod's field that can be a file: one of its metadata, as in Kubernetes."""
    if path not in FILE_FIELDS and not _FIELD_OF_MAPPING.fullmatch(path):
        raise wrong("no such field for a file", path, f"{', '.join(FILE_FIELDS)} or metadata.labels['KEY']")
    return path


FILE_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")


def check_object_name(name: str) -> str:
    """Check a name of an object that may contain dots (RFC 1123 subdomain)."""
    if not name or len(name) > MAX_OBJECT_NAME or not all(_LABEL.fullmatch(part) for part in name.split(".")):
        want = f"a-z, 0-9, - and . between, at most {MAX_OBJECT_NAME} characters"
        raise wrong("not a name", name if len(name) <= MAX_OBJECT_NAME else f"{len(name)} characters", want)
    return name


def check_config_key(key: str) -> str:
    """Check a key of a ConfigMap or Secret, which is also a file name."""
    if not _CONFIG_KEY.fullmatch(key) or key == "." or key.startswith("..") or len(key) > MAX_OBJECT_NAME:
        raise wrong("not a key", key, "letters, digits, - _ and ., not .. first")
    return key


def check_environment_name(name: str) -> str:
    """Check a name of an environment variable, as in Kubernetes."""
    if not _ENVIRONMENT.fullmatch(name):
        raise wrong("not a variable name", name, "letters, digits, _ . and -, not a digit first")
    return name


def check_label_key(key: str) -> str:
    """Check a key of `metadata.labels`, as in Kubernetes: NAME or DOMAIN/NAME."""
    prefix, slash, name = key.rpartition("/")
    if not _is_label_part(name) or (slash and not (_LABEL_PART.fullmatch(prefix) and len(prefix) <= 253)):
        raise wrong("not a label's key", key, f"letters, digits, - _ . and one / at most, {MAX_LABEL} characters")
    return key


def check_label_value(value: str) -> str:
    """Check a value of `metadata.labels`, as in Kubernetes."""
    if value and not _is_label_part(value):
        raise wrong("not a label's value", value, f"letters, digits, - _ . between, at most {MAX_LABEL} characters")
    return value


def _is_label_part(text: str) -> bool:
    return bool(_LABEL_PART.fullmatch(text)) and len(text) <= MAX_LABEL


def check_process_text(text: str) -> str:
    """Check a text for a program's argument or variable."""
    if "\0" in text:
        raise wrong("a NUL character, with which no program can be started", text, "text without it")
    return text


def check_one_word(text: str) -> str:
    """Check one word of /etc/resolv.conf."""
    if not text or not text.isprintable() or len(text.split()) != 1 or len(text) > 253:
        raise wrong("not one word", text, "a word without spaces")
    return text


def check_mount_path(path: str) -> str:
    """Check an absolute path without `..`, inside the container or on the machine."""
    if not path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        raise wrong("not an absolute path", path, "a path from / without ..")
    return posixpath.normpath("/" + path.lstrip("/"))


def check_sub_path(path: str) -> str:
    """Check a path below a volume."""
    if not path or path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        raise wrong("not a path inside the volume", path, "a relative path without ..")
    return posixpath.normpath(path)


def check_volume_file(path: str) -> str:
    """Check a file's path below a volume of a ConfigMap or Secret, whose own links begin with two dots."""
    path = check_sub_path(path)
    if path == "." or path.startswith(".."):
        raise wrong("not a file of the volume", path, "a relative path that does not begin with ..")
    return path
