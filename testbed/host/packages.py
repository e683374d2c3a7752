"""Missing Python packages and Debian packages, and the commands that install them."""

from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

from packaging.requirements import Requirement

from testbed.places import PROJECT

EXTRA = "lab"
"""Optional dependencies in pyproject.toml: what the testbed needs besides the agent's."""
SERVICES = {"etcd-server": "etcd", "knot": "knot", "nginx-light": "nginx", "tomcat10": "tomcat10"}
"""Debian package → the service that it starts, which no lab needs."""


def required_packages() -> tuple[Requirement, ...]:
    """Return the requirements of a lab from pyproject.toml; empty if the project is not installed."""
    try:
        lines = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return ()
    requirements = map(Requirement, lines)
    return tuple(one for one in requirements if one.marker is None or one.marker.evaluate({"extra": EXTRA}))


def unsatisfied(required: Iterable[Requirement], version: Callable[[str], str | None]) -> list[str]:
    """List each package that is missing or has a version outside its range."""
    problems = []
    for one in required:
        found = version(one.name)
        if found is None:
            problems.append(f"{one.name} missing")
        elif not one.specifier.contains(found, prereleases=True):
            problems.append(f"{one.name} {found} instead of {one.specifier}")
    return problems


def installed_version(name: str) -> str | None:
    """Return the version of a Python package; None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def apt_lines(packages: Sequence[str]) -> list[str]:
    """Return commands that install these Debian packages, and stop the services that come with them."""
    if not packages:
        return []
    services = [SERVICES[package] for package in packages if package in SERVICES]
    stop = [f"sudo systemctl disable --now {' '.join(services)}   # no lab needs them"] if services else []
    return [f"sudo apt-get install --no-install-recommends {' '.join(packages)}", *stop]
