"""Typed access to flannel's JSON fields, and the rules by which a network is cut into subnets. Pure.

Both address families keep the same rules with other numbers, so they are one function over plain integers.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address


class Fields:
    """A JSON object read as Go would: keys in any case, null as absent. Mistakes are collected, not raised."""

    def __init__(self, values: Mapping[str, object]) -> None:
        # The last spelling wins, as in Go.
        self._values = {name.lower(): value for name, value in values.items()}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        """What is taken, but not as it stands."""

    def has(self, name: str) -> bool:
        """Whether the key is there, even with null."""
        return name.lower() in self._values

    def get(self, name: str) -> object:
        """The value, or None."""
        return self._values.get(name.lower())

    def problem(self, name: str, what: str, got: object, want: str) -> None:
        """Note that field `name` is wrong."""
        shown = json.dumps(got, ensure_ascii=False)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        self.problems.append(f"{name}: {what} (got {shown}; want {want})")

    def attempt(self, check: Callable[[], object]) -> None:
        """Run `check` and note its ValueError."""
        try:
            check()
        except ValueError as error:
            self.problems.append(str(error))

    def switch(self, name: str, default: bool) -> bool:
        """A JSON boolean."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(name, "not a boolean", value, "true or false")
            return default
        return value

    def length(self, name: str) -> int | None:
        """A prefix length; 0 counts as absent, as Go's zero value does."""
        value = self.get(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.problem(name, "not a prefix length", value, "a whole number such as 24, without quotes")
            return None
        return value

    def text(self, name: str) -> str | None:
        """A JSON string; anything else is noted and counts as absent."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self.problem(name, "not a string", value, "an address in quotes")
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class FamilyRules:
    """What differs between the families in flannel's rules."""

    prefix: str
    """What the field names begin with."""
    bits: int
    longest_subnet: int
    longest_network: int
    default_len: int
    """Taken when the network has room for at least four such subnets."""
    network_example: str

    def address(self, text: str) -> int:
        """The address as a number. Raises ValueError."""
        return int(IPv4Address(text)) if self.bits == 32 else int(IPv6Address(text))

    def show(self, address: int) -> str:
        """The number as an address."""
        return str(IPv4Address(address)) if self.bits == 32 else str(IPv6Address(address))


IPV4_RULES = FamilyRules("", 32, longest_subnet=30, longest_network=28, default_len=24, network_example="10.0.0.0/16")
IPV6_RULES = FamilyRules(
    "IPv6", 128, longest_subnet=126, longest_network=124, default_len=64, network_example="fd00::/48"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """A network and the range of its subnets, as integers of one family."""

    network: int
    network_len: int
    subnet_len: int
    subnet_min: int
    subnet_max: int


def subnet_layout(fields: Fields, family: FamilyRules) -> Layout | None:
    """Read and check one family's fields; None when a problem was noted."""
    before = len(fields.problems)
    given_len = fields.length(family.prefix + "SubnetLen")
    network = _network(fields, family)
    if network is None or given_len is None:
        # The addresses' own syntax can still be checked.
        _address(fields, family, "SubnetMin")
        _address(fields, family, "SubnetMax")
        return None
    base, network_len = network
    subnet_len = _subnet_len(fields, family, network_len, given_len)
    if subnet_len is None:
        return None
    step = 1 << (family.bits - subnet_len)
    end = base + (1 << (family.bits - network_len))
    layout = Layout(
        network=base,
        network_len=network_len,
        subnet_len=subnet_len,
        # The first subnet is left out: its base would equal the network's own address.
        subnet_min=_bound(fields, family, "SubnetMin", base + step, (base, end, step)),
        subnet_max=_bound(fields, family, "SubnetMax", end - step, (base, end, step)),
    )
    if len(fields.problems) == before and layout.subnet_min > layout.subnet_max:
        name = family.prefix + "SubnetMin"
        fields.problem(
            name,
            f"{name} is above {family.prefix}SubnetMax, so no subnet can be leased",
            family.show(layout.subnet_min),
            f"at most {family.show(layout.subnet_max)}",
        )
    return layout if len(fields.problems) == before else None


def _network(fields: Fields, family: FamilyRules) -> tuple[int, int] | None:
    """Base address and length; host bits are masked off, as flannel does."""
    name = family.prefix + "Network"
    several = fields.get(name + "s")
    if isinstance(several, list) and several:
        # flannel up to 0.20 wrote a list, of which only the first entry counted.
        fields = _with(fields, name, several[0])
    problems = len(fields.problems)
    text = fields.text(name)
    if text is None or text == "":
        if len(fields.problems) == problems:
            complaint = f"please define a correct {name} parameter in the flannel config"
            fields.problem(name, complaint, text, f"e.g. {family.network_example}")
        return None
    address, slash, length = text.partition("/")
    try:
        if not slash or not re.fullmatch(r"[0-9]{1,3}", length) or int(length) > family.bits:
            raise ValueError(text)
        number = family.address(address)
    except ValueError:
        fields.problem(name, "not a network in CIDR notation", text, f"e.g. {family.network_example}")
        return None
    host_bits = family.bits - int(length)
    base = number >> host_bits << host_bits
    if base != number:
        taken = f"{family.show(base)}/{length}"
        fields.warnings.append(f"{name}: has host bits, which do not count (got {text}; taken as {taken})")
    return base, int(length)


def _with(fields: Fields, name: str, value: object) -> Fields:
    """The same fields with one replaced; problems go to the same list."""
    copy = Fields({name: value})
    copy.problems, copy.warnings = fields.problems, fields.warnings
    return copy


def _subnet_len(fields: Fields, family: FamilyRules, network_len: int, given: int) -> int | None:
    name = family.prefix + "SubnetLen"
    if given == 0:
        if network_len > family.longest_network:
            fields.problem(
                family.prefix + "Network",
                f"network is too small. Minimum useful network prefix is /{family.longest_network}",
                f"/{network_len}",
                f"/{family.longest_network} or shorter",
            )
            return None
        return family.default_len if network_len <= family.default_len - 2 else network_len + 2
    if given > family.longest_subnet:
        complaint = f"{name} must be less than /{family.longest_subnet + 1}"
        fields.problem(name, complaint, given, f"at most {family.longest_subnet}")
        return None
    if given < network_len + 2:
        complaint = "network must be able to accommodate at least four subnets"
        fields.problem(name, complaint, given, f"at least {network_len + 2} in a /{network_len}")
        return None
    return given


def _bound(fields: Fields, family: FamilyRules, which: str, default: int, layout: tuple[int, int, int]) -> int:
    """SubnetMin or SubnetMax as given and checked, else `default`. `layout` is network base, its end and one step."""
    base, end, step = layout
    address = _address(fields, family, which)
    if address is None:
        return default
    name = family.prefix + which
    if not base <= address < end:
        complaint = f"{name} is not in the range of the {family.prefix}Network"
        fields.problem(name, complaint, family.show(address), f"{family.show(base)} to {family.show(end - step)}")
        return default
    if address % step:
        boundary = family.show(address - address % step)
        complaint = f"{name} is not on a {family.prefix}SubnetLen boundary: {family.show(address)}"
        fields.problem(name, complaint, family.show(address), f"e.g. {boundary}")
        return default
    return address


def _address(fields: Fields, family: FamilyRules, which: str) -> int | None:
    """An address as a number; the zero address counts as absent, as in flannel."""
    name = family.prefix + which
    text = fields.text(name)
    if not text:
        return None
    try:
        return family.address(text) or None
    except AddressValueError:
        fields.problem(name, "not an address", text, "the base address of a subnet")
        return None
