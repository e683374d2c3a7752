"""`etcd:` of a cluster file: servers of the lab, or an existing cluster. Pure."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agent.options import parsers
from testbed.cluster.agent_words import FLANNELS_PREFIX
from testbed.cluster.manifest_model import Model
from testbed.cluster.name_rules import check_mount_path, wrong
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

OF_MEMBERS = ("members", "program")
OF_TLS = ("ca", "cert", "key")


def _endpoint(text: str) -> str:
    try:
        return parsers.endpoint(text)
    except ValueError as error:
        what, _, _ = str(error).partition("; want ")
        raise wrong(what, text, "http://HOST:PORT or https://HOST:PORT") from None


def _prefix(text: str) -> str:
    if not text.startswith("/") or text == "/" or text.endswith("/") or "//" in text or not text.isprintable():
        raise wrong("not a key prefix", text, f"a key such as {FLANNELS_PREFIX}, without a final slash")
    return text


Endpoint = Annotated[str, AfterValidator(_endpoint)]
File = Annotated[str, AfterValidator(check_mount_path)]


class EtcdSpec(Model):
    """`members` servers in the lab; or `endpoints`, a cluster that exists, which the lab's agents use by a relay."""

    members: Literal[1, 3] | None = None
    endpoints: Annotated[tuple[Endpoint, ...], Field(strict=False, min_length=1, max_length=100)] | None = None
    """URLs of an existing cluster, as this machine reaches it."""
    ca: File | None = None
    """Its authority's certificate (PEM); without it, those that the machine trusts."""
    cert: File | None = None
    """Our certificate for it (PEM)."""
    key: File | None = None
    """The certificate's key."""
    user: str | None = None
    """Our user in it."""
    password_file: File | None = None
    """File with the user's password."""
    prefix: Annotated[str, AfterValidator(_prefix)] | None = None
    """Our keys begin with it, by default /testbed/LAB/network; one that you name may be in use by other agents."""
    tls: bool = True
    """TLS in both directions, and a user for each agent that may write only its own keys."""
    program: Annotated[str, Field(min_length=1)] = "etcd"
    """The members' program, of any version with 3.4's flags: a name on PATH, or a path outside /tmp, /var/tmp, /run."""

    @property
    def member_count(self) -> int:
        """Return how many machines for etcd the lab has: its servers, or the relay to an existing cluster."""
        return self.members or 1

    @property
    def is_https(self) -> bool:
        """Return whether an existing cluster wants TLS."""
        return any(one.startswith("https:") for one in self.endpoints or ())

    def prefix_of(self, lab: str) -> str:
        """Return what the lab's keys begin with."""
        if self.endpoints is None:
            return FLANNELS_PREFIX
        return self.prefix or f"/testbed/{lab}/network"

    @property
    def settled(self) -> "EtcdSpec":
        """Return the same with the default number of members written out."""
        return self.model_copy(update={"members": self.member_count})


def check_etcd(source: Source, etcd: EtcdSpec) -> Iterator[Problem]:
    """Find fields that do not fit together."""

    def refused(field: str, what: str) -> Problem:
        return source.problem(("etcd", written_as(field)), what)

    given = [field for field in EtcdSpec.model_fields if field in etcd.model_fields_set]
    if etcd.endpoints is None:
        for field in given:
            if field not in (*OF_MEMBERS, "endpoints", "tls"):
                word = written_as(field)
                yield refused(
                    field, f"belongs to an existing cluster (got {word} alone; want endpoints: [https://HOST:PORT])"
                )
        return
    for field in OF_MEMBERS:
        if field in given:
            yield refused(field, f"an existing cluster has its own servers (got {field}; want endpoints alone)")
    if etcd.is_https and any(one.startswith("http:") for one in etcd.endpoints):
        yield refused("endpoints", f"with and without TLS (got {', '.join(etcd.endpoints)}; want one scheme)")
    for field in OF_TLS:
        if field in given and not etcd.is_https:
            yield refused(field, f"a file for TLS (got {field} and http://; want https:// endpoints)")
    for one, other in (("cert", "key"), ("key", "cert"), ("user", "password_file"), ("password_file", "user")):
        if one in given and other not in given:
            word, missing = written_as(one), written_as(other)
            yield refused(one, f"{word} and {missing} belong together (got {word} alone; want {missing} beside it)")


def written_as(field: str) -> str:
    """Return a field's name in the file."""
    return EtcdSpec.model_fields[field].alias or field
