"""Recipes for images: a program's command, private config and directories.

Nothing is pulled. Pure, except for checks of which programs the machine has. The program itself is the machine's own
under /usr, which every container sees read-only; everything else is written into the container's private root.
`command`, `args`, `env` and `workingDir` of the manifest work as in Kubernetes.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from testbed.cluster.debian_versions import version_of
from testbed.cluster.image_files import (
    HTTPD_CONF,
    HTTPD_INDEX,
    NGINX_CONF,
    NGINX_UPSTREAM_LOCATION,
    NGINX_WEB_ROOT_LOCATION,
    TOMCAT_CATALINA_PROPERTIES,
    TOMCAT_INDEX_JSP,
    TOMCAT_SERVER_XML,
    TOMCAT_WEB_XML,
)
from testbed.cluster.image_names import reference
from testbed.cluster.manifest import Container
from testbed.cluster.problems import Problem, near_match, shorten
from testbed.cluster.validation import Source
from testbed.places import AGNHOST, ECHO_SERVER, SYSTEM_PATH

ECHO_PORT = 8080
NGINX_PORT = 80
KERNEL_HAS_IPV6 = Path("/proc/net/if_inet6")
TOMCAT_PORT = 8080
JVM_DIRECTORY = Path("/usr/lib/jvm")
HTTPD_PORT = 80
SERVE_HOSTNAME_PORT = 9376
BUSYBOX = "/usr/bin/busybox"
BUSYBOX_DIRECTORY = "/opt/busybox"
BUSYBOX_APPLETS = (
    *("arp", "ash", "ftpget", "ftpput", "httpd", "ifconfig", "nc", "netstat", "nslookup", "route", "telnet"),
    *("tftp", "traceroute", "unzip", "vi", "wget"),
)
"""Commands that people use in pods and that differ from the machine's, or that it does not have."""
DEBIAN_PACKAGES = {
    "nginx": ("nginx-light", "nginx-core", "nginx-full", "nginx"),
    "httpd": ("apache2-bin",),
    "tomcat": ("tomcat10",),
    "busybox": ("busybox", "busybox-static"),
    "alpine": ("busybox", "busybox-static"),
}
"""Recipe → package of its program, to find the version."""
PROGRAMS = {"nginx": "nginx", "httpd": "Apache httpd", "tomcat": "Tomcat", "busybox": "BusyBox", "alpine": "BusyBox"}

# The first process of a PID namespace ignores TERM without a handler, and a shell handles it only between commands or
# in `wait`. `wait` also reaps orphans.
_WAIT = ("/bin/sh", "-c", "trap 'kill $!; exit 0' TERM INT; sleep infinity & wait")
_UPSTREAM = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")


class RecipeError(ValueError):
    """The manifest sets an environment `variable` to a value that the recipe cannot use."""

    def __init__(self, variable: str, what: str) -> None:
        super().__init__(what)
        self.variable = variable


@dataclass(frozen=True, slots=True)
class Program:
    """Everything needed to start one container's process."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: str
    files: Mapping[str, str]
    """Absolute path inside the container's private root → text."""
    directories: tuple[str, ...]
    """Created in the private root, before the files."""
    port: int | None
    """TCP port that is in LISTEN once the container is ready; None: ready when it runs."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Absolute path inside the container's private root → target of the symbolic link."""


@dataclass(frozen=True, slots=True)
class Values:
    """Values of variables from other sources."""

    from_objects: Mapping[str, str] = field(default_factory=dict)
    """All of `envFrom`, by variable."""
    by_name: Mapping[str, str] = field(default_factory=dict)
    """Of each variable with `valueFrom`; variables without a value are missing."""


@dataclass(frozen=True, slots=True)
class _Image:
    """What a real image would contain: entrypoint, default arguments, environment, files."""

    entrypoint: tuple[str, ...] = ()
    default_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    port: int | None = None
    links: Mapping[str, str] = field(default_factory=dict)


def program(container: Container, values: Values = Values()) -> Program:
    """Return the program for `container`, by its image's recipe and Kubernetes' rules for command and args.

    `command` replaces the recipe's program, whose port is then unknown; `args` alone replace the recipe's arguments.
    `$(NAME)` in command, args and env is replaced if NAME is known, `$$` is a `$`. A stand-in has neither command nor
    args of the image that it replaces. Raises RecipeError; KeyError for an image without a recipe.
    """
    literal = {one.name: one.value for one in container.env if one.value_from is None}
    given = {**values.from_objects, **literal, **values.by_name}
    image = _stand_in(container) if container.stand_in else _RECIPES[container.recipe](container, given)
    env: dict[str, str] = {"PATH": SYSTEM_PATH, **image.env, **values.from_objects}
    for variable in container.env:
        # A value from elsewhere is used literally.
        if variable.value_from is None:
            env[variable.name] = expand(variable.value, env)
        elif variable.name in values.by_name:
            env[variable.name] = values.by_name[variable.name]
    if container.stand_in:
        argv = image.entrypoint
    elif container.command:
        argv = (*container.command, *(container.args or ()))
    else:
        argv = (*image.entrypoint, *(container.args or image.default_args))
    own_program = container.stand_in or (not container.command and (bool(image.entrypoint) or not container.args))
    return Program(
        argv=tuple(expand(argument, env) for argument in argv),
        env=MappingProxyType(env),
        working_dir=container.working_dir or "/",
        files=image.files,
        directories=image.directories,
        port=image.port if own_program else None,
        links=image.links,
    )


def difference_of(container: Container) -> str:
    """Return how the program differs from the container's image; empty if it does not."""
    image, recipe = container.image, container.recipe
    if container.stand_in:
        ports = ", ".join(_stand_in_ports(container)) or "none declared"
        return f"a stand-in that answers on its ports ({ports}) runs (got {shorten(image)}; nothing is pulled)"
    name = reference(image)
    version = version_of(DEBIAN_PACKAGES.get(recipe, ()))
    if not (name.tag or name.digest) and name.repository.rpartition("/")[2] == recipe:
        return ""
    if not name.digest and name.tag in ("latest", version) and name.repository.rpartition("/")[2] == recipe:
        return ""
    what = f"this machine's {PROGRAMS[recipe]} {version or ''}".rstrip() if recipe in PROGRAMS else f"recipe {recipe}"
    return f"{what} runs (got {shorten(image)}; nothing is pulled)"


def program_of(recipe: str) -> str:
    """Return the recipe whose program this one runs, to check whether the machine has it."""
    return "busybox" if recipe in ("alpine", "netshoot", "agnhost", "serve-hostname") else recipe


def check_rules(source: Source, images: Mapping[str, str]) -> Iterator[Problem]:
    """Check that every pattern under `images` leads to a recipe."""
    for pattern, recipe in images.items():
        if recipe not in RECIPES:
            what = f"no such recipe (got {shorten(recipe)}; want {', '.join(RECIPES)}){near_match(recipe, RECIPES)}"
            yield source.problem(("images", pattern), what)


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does: unknown names stay as they are, `$$(NAME)` is a literal `$(NAME)`."""

    def replace(match: re.Match[str]) -> str:
        return "$" if match[1] is None else env.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def _nginx(_container: Container, given: Mapping[str, str]) -> _Image:
    upstream = given.get("NGINX_UPSTREAM", "")
    if upstream and not _UPSTREAM.fullmatch(upstream):
        raise RecipeError("NGINX_UPSTREAM", f"not an address (got {upstream!r}; want ADDRESS:PORT, as 10.0.90.2:8080)")
    # As in Debian's own nginx; a kernel without IPv6 would refuse it.
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
    # Starts quickly rather than running fast: one page, started often. C1 only, a minimal heap, the JDK's class
    # archive.
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
    return _Image(default_args=_WAIT)


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


def _stand_in(container: Container) -> _Image:
    """Answer on every port of the image's own program, as far as the container declares them."""
    inside = "/opt/echo/echo_server.py"
    ports = _stand_in_ports(container)
    return _Image(
        entrypoint=("/usr/bin/python3", "-I", "-S", inside, "--stand-in", *ports),
        files={inside: ECHO_SERVER.read_text(encoding="utf-8")},
        port=next((int(port.removesuffix("/TCP")) for port in ports if port.endswith("/TCP")), None),
    )


def _stand_in_ports(container: Container) -> list[str]:
    """Return ports like `80/TCP`, including those of probes."""
    declared = [f"{port.container_port}/{port.protocol}" for port in container.ports]
    probed = [probe.port for probe in container.probes.values()]
    return list(dict.fromkeys([*declared, *(f"{port}/TCP" for port in probed if isinstance(port, int))]))


def _httpd(_container: Container, _given: Mapping[str, str]) -> _Image:
    root = "/usr/local/apache2"
    return _Image(
        entrypoint=("/usr/sbin/apache2", "-f", f"{root}/conf/httpd.conf"),
        default_args=("-D", "FOREGROUND"),
        files={
            f"{root}/conf/httpd.conf": HTTPD_CONF.substitute(root=root, port=HTTPD_PORT),
            f"{root}/htdocs/index.html": HTTPD_INDEX,
        },
        port=HTTPD_PORT,
    )


def _busybox(_container: Container, _given: Mapping[str, str]) -> _Image:
    return _Image(default_args=_WAIT, env={"PATH": f"{BUSYBOX_DIRECTORY}:{SYSTEM_PATH}"}, links=_links({}))


def _netshoot(_container: Container, _given: Mapping[str, str]) -> _Image:
    # The machine's own tools come first; kdig accepts dig's options.
    links = _links({"dig": "/usr/bin/kdig", "host": "/usr/bin/khost"})
    return _Image(default_args=_WAIT, env={"PATH": f"{SYSTEM_PATH}:{BUSYBOX_DIRECTORY}"}, links=links)


def _links(more: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{BUSYBOX_DIRECTORY}/{name}": to for name, to in {**dict.fromkeys(BUSYBOX_APPLETS, BUSYBOX), **more}.items()
    }


def _curl(_container: Container, _given: Mapping[str, str]) -> _Image:
    return _Image(entrypoint=("/usr/bin/curl",), default_args=("--help",))


def _pause(_container: Container, _given: Mapping[str, str]) -> _Image:
    return _Image(entrypoint=_WAIT)


def _agnhost(_container: Container, _given: Mapping[str, str]) -> _Image:
    files = {
        "/agnhost": AGNHOST.read_text(encoding="utf-8"),
        "/opt/echo/testbed/pods/echo_server.py": ECHO_SERVER.read_text(encoding="utf-8"),
    }
    netshoot = _netshoot(_container, _given)
    return _Image(
        entrypoint=("/agnhost",), default_args=("pause",), env=netshoot.env, files=files, links=netshoot.links
    )


def _serve_hostname(container: Container, given: Mapping[str, str]) -> _Image:
    return replace(_agnhost(container, given), default_args=("serve-hostname",), port=SERVE_HOSTNAME_PORT)


def _echoserver(container: Container, given: Mapping[str, str]) -> _Image:
    # Whatever `ports` says: the image has its own port.
    return _echo(container, {**given, "PORT": given.get("PORT", str(ECHO_PORT))})


def find_java(directory: Path = JVM_DIRECTORY) -> str:
    """Return the Java for tomcat: Debian's default, else its newest, else any `java`."""
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
    "httpd": _httpd,
    "busybox": _busybox,
    "alpine": _busybox,
    "netshoot": _netshoot,
    "agnhost": _agnhost,
    "serve-hostname": _serve_hostname,
    "echoserver": _echoserver,
    "curl": _curl,
    "pause": _pause,
}

RECIPES: Mapping[str, str] = {
    "nginx": "a real nginx on port 80; NGINX_UPSTREAM=ADDRESS:PORT makes it a reverse proxy"
    " (or NAME:PORT, looked up once, at its start)",
    "tomcat": "a real Tomcat 10 on port 8080 with one page",
    "shell": "the machine's own tools; sleeps",
    "echo": "HTTP and UDP on one port, 8080 unless `ports` or PORT sets another: /hostname, /clientip, /echo",
    "httpd": "a real Apache httpd on port 80 with one page",
    "busybox": "the machine's BusyBox, before its own tools: wget, nslookup, nc, httpd; sleeps",
    "alpine": "the same; there is no apk",
    "netshoot": "the machine's own tools, then BusyBox's; dig is kdig; sleeps",
    "agnhost": "/agnhost with netexec, serve-hostname, liveness and pause; dig, nslookup and curl",
    "echoserver": "echo on port 8080",
    "curl": "the machine's curl with `args`",
    "pause": "sleeps",
    "serve-hostname": "its pod's name, over HTTP on port 9376",
}
"""Name → description in one line."""
