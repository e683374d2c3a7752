"""What an image name means here: a recipe that makes a program's command, private config and directories. Nothing is
pulled. Pure but for looking at which Java the machine has.

The program itself is the machine's own under /usr, which every container sees read-only; everything else is written
into the container's private root. `command`, `args`, `env` and `workingDir` of the manifest act as in Kubernetes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from testbed.cluster.image_files import (
    NGINX_CONF,
    NGINX_UPSTREAM_LOCATION,
    NGINX_WEB_ROOT_LOCATION,
    TOMCAT_CATALINA_PROPERTIES,
    TOMCAT_INDEX_JSP,
    TOMCAT_SERVER_XML,
    TOMCAT_WEB_XML,
)
from testbed.cluster.manifest import Container
from testbed.places import ECHO_SERVER

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ECHO_PORT = 8080
NGINX_PORT = 80
KERNEL_HAS_IPV6 = Path("/proc/net/if_inet6")
TOMCAT_PORT = 8080
JVM_DIRECTORY = Path("/usr/lib/jvm")

_UPSTREAM = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")


class RecipeError(ValueError):
    """The manifest gives a recipe a value of the environment's `variable` that it cannot use."""

    def __init__(self, variable: str, what: str) -> None:
        super().__init__(what)
        self.variable = variable


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that starts one container's process."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: str
    files: Mapping[str, str]
    """Absolute path inside the container's private root → text."""
    directories: tuple[str, ...]
    """Made in the private root, before the files."""
    port: int | None
    """TCP port that is in LISTEN when the container is ready; None: ready when it runs."""


@dataclass(frozen=True, slots=True)
class _Image:
    """What a real image would bring: entrypoint, default arguments, environment, files."""

    entrypoint: tuple[str, ...] = ()
    default_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    port: int | None = None


def program(container: Container) -> Program:
    """What to run for `container`, by its image's recipe and Kubernetes' rules for command and args.

    `command` replaces the recipe's program and then nothing is known about its port; `args` alone replace the
    recipe's arguments. `$(NAME)` in command, args and env is replaced where NAME is known, `$$` is a `$`.
    Raises RecipeError; KeyError for an image that is no recipe.
    """
    given = {variable.name: variable.value for variable in container.env}
    image = _RECIPES[container.image](container, given)
    env: dict[str, str] = {"PATH": PATH, **image.env}
    for name, value in given.items():
        env[name] = expand(value, env)
    if container.command:
        argv = (*container.command, *(container.args or ()))
    else:
        argv = (*image.entrypoint, *(container.args or image.default_args))
    own_program = not container.command and (bool(image.entrypoint) or not container.args)
    return Program(
        argv=tuple(expand(argument, env) for argument in argv),
        env=MappingProxyType(env),
        working_dir=container.working_dir or "/",
        files=image.files,
        directories=image.directories,
        port=image.port if own_program else None,
    )


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does: unknown names stay as they are, `$$(NAME)` is a literal `$(NAME)`."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[1] is None else env.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def _nginx(_container: Container, given: Mapping[str, str]) -> _Image:
    upstream = given.get("NGINX_UPSTREAM", "")
    if upstream and not _UPSTREAM.fullmatch(upstream):
        raise RecipeError("NGINX_UPSTREAM", f"not an address (got {upstream!r}; want ADDRESS:PORT, as 10.0.90.2:8080)")
    # As Debian's own nginx does; a kernel without IPv6 would refuse it.
    ipv6 = f" listen [::]:{NGINX_PORT} default_server;" if KERNEL_HAS_IPV6.exists() else ""
    location = NGINX_UPSTREAM_LOCATION.substitute(upstream=upstream) if upstream else NGINX_WEB_ROOT_LOCATION
    return _Image(
        entrypoint=("/usr/sbin/nginx",),
        default_args=("-g", "daemon off;"),
        files={"/etc/nginx/nginx.conf": NGINX_CONF.substitute(port=NGINX_PORT, ipv6=ipv6, location=location)},
        directories=("/var/lib/nginx", "/var/log/nginx", "/var/cache/nginx"),
        port=NGINX_PORT,
    )


def _tomcat(_container: Container, _given: Mapping[str, str]) -> _Image:
    home, base = "/usr/share/tomcat10", "/var/lib/tomcat"
    java = find_java()
    # Quick rather than fast: one page, started often. C1 only, no heap to speak of, the JDK's class archive.
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-XX:-UsePerfData", "-Xms24m", "-Xmx96m")
    properties = {
        "catalina.home": home,
        "catalina.base": base,
        "java.io.tmpdir": "/tmp",
        "java.awt.headless": "true",
        "java.security.egd": "file:/dev/urandom",
        "java.util.logging.SimpleFormatter.format": "%1$tF %1$tT %4$s %5$s%6$s%n",
    }
    classpath = f"{home}/bin/bootstrap.jar:{home}/bin/tomcat-juli.jar"
    return _Image(
        entrypoint=(
            java,
            *quick,
            "-cp",
            classpath,
            *(f"-D{name}={value}" for name, value in properties.items()),
            "org.apache.catalina.startup.Bootstrap",
        ),
        default_args=("start",),
        env={"CATALINA_HOME": home, "CATALINA_BASE": base},
        files={
            f"{base}/conf/server.xml": TOMCAT_SERVER_XML.substitute(port=TOMCAT_PORT),
            f"{base}/conf/web.xml": TOMCAT_WEB_XML,
            f"{base}/conf/catalina.properties": TOMCAT_CATALINA_PROPERTIES,
            f"{base}/webapps/ROOT/index.jsp": TOMCAT_INDEX_JSP,
        },
        directories=(f"{base}/logs", f"{base}/work", f"{base}/temp", f"{base}/lib"),
        port=TOMCAT_PORT,
    )


def _shell(_container: Container, _given: Mapping[str, str]) -> _Image:
    # The first process of a PID namespace ignores TERM unless it handles it, and a shell handles it only between
    # commands or in `wait`. `wait` also reaps orphans.
    wait = "trap 'kill $!; exit 0' TERM INT; sleep infinity & wait"
    return _Image(default_args=("/bin/sh", "-c", wait))


def _echo(container: Container, given: Mapping[str, str]) -> _Image:
    declared = next((port.container_port for port in container.ports if port.protocol == "TCP"), ECHO_PORT)
    port = given.get("PORT", str(declared))
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise RecipeError("PORT", f"not a port (got {port!r}; want 1 to 65535)")
    inside = "/opt/echo/echo_server.py"
    return _Image(
        entrypoint=("/usr/bin/python3", "-I", "-S", inside),
        env={"PORT": port},
        files={inside: ECHO_SERVER.read_text(encoding="utf-8")},
        port=int(port),
    )


def find_java(directory: Path = JVM_DIRECTORY) -> str:
    """The Java to run tomcat with: Debian's default, else its newest, else whatever `java` is."""
    packaged = sorted(directory.glob("java-*-openjdk*/bin/java"), key=lambda path: _java_version(path), reverse=True)
    for java in (directory / "default-java/bin/java", *packaged):
        if java.exists():
            return str(java)
    return "/usr/bin/java"


def _java_version(java: Path) -> int:
    # java-17-openjdk-amd64, but also java-1.17.0-openjdk-amd64, which is a link to it.
    found = re.match(r"java-(?:1\.)?(\d+)", java.parent.parent.name)
    return int(found[1]) if found else 0


_RECIPES: Mapping[str, Callable[[Container, Mapping[str, str]], _Image]] = {
    "nginx": _nginx,
    "tomcat": _tomcat,
    "shell": _shell,
    "echo": _echo,
}

RECIPES: Mapping[str, str] = {
    "nginx": "a real nginx on port 80; NGINX_UPSTREAM=ADDRESS:PORT makes it a reverse proxy",
    "tomcat": "a real Tomcat 10 on port 8080 with one page",
    "shell": "the machine's own tools; sleeps",
    "echo": "HTTP and UDP on one port, 8080 unless `ports` or PORT says another: /hostname, /clientip, /echo",
}
"""Name → what it is, in one line."""
