"""flannel's rules for dividing a network into subnets. Pure.

Both address families follow the same rules with other numbers, so one function over plain integers serves both.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from agent.netconfig.fields import Fields, WrongValue, text


@dataclass(frozen=True, slots=True)
class FamilyRules:
    """The difference between the families in flannel's rules."""

    prefix: str
    """Prefix of the field names."""
    bits: int
    longest_subnet: int
    longest_network: int
    default_len: int
    """The default if the network has room for at least four such subnets."""
    network_example: str

    def number(self, address: str) -> int:
        """Return the address as a number. Raises AddressValueError."""
        return int(IPv4Address(address)) if self.bits == 32 else int(IPv6Address(address))

    def show(self, number: int) -> str:
        """Return the number as an address."""
        return str(IPv4Address(number)) if self.bits == 32 else str(IPv6Address(number))

    def read_address(self, value: object) -> int | None:
        """Read an address; the zero address and "" count as absent, as in flannel."""
        address = text(value, "an address in quotes")
        try:
            return self.number(address) or None if address else None
        except AddressValueError:
            raise WrongValue("not an address", "the base address of a subnet") from None

    def read_length(self, value: object) -> int:
        """Read a subnet's prefix length; 0 counts as absent, like Go's zero value."""
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise WrongValue("not a prefix length", "a whole number such as 24, without quotes")
        if value > self.longest_subnet:
            what = f"{self.prefix}SubnetLen must be less than /{self.longest_subnet + 1}"
            raise WrongValue(what, f"at most {self.longest_subnet}")
        return value

    def read_network(self, value: object) -> tuple[int, int]:
        """Read a network in CIDR notation as its address, host bits included, and its length."""
        want = f"e.g. {self.network_example}"
        if value is None or value == "":
            raise WrongValue(f"please define a correct {self.prefix}Network parameter in the flannel config", want)
        address, slash, length = text(value, "an address in quotes").partition("/")
        try:
            if not slash or not re.fullmatch(r"[0-9]{1,3}", length) or int(length) > self.bits:
                raise AddressValueError(value)
            return self.number(address), int(length)
        except AddressValueError:
            raise WrongValue("not a network in CIDR notation", want) from None


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
    warning: str | None
    """A valid value that is used differently from how it is written."""


def read_layout(fields: Fields, family: FamilyRules) -> Layout | None:
    """Read and check one family's fields, and record problems; None if the size of the network or of the subnets is
    wrong.
    """
    before = len(fields.problems)
    name = family.prefix + "Network"
    several = fields.get(name + "s")
    # flannel up to 0.20 wrote a list, of which only the first entry counted.
    given = several[0] if isinstance(several, list) and several else fields.get(name)
    address, network_len = fields.check(name, given, family.read_network, (0, 0))
    given_len = fields.read(family.prefix + "SubnetLen", family.read_length, 0)
    sizes_known = len(fields.problems) == before
    lowest = fields.read(family.prefix + "SubnetMin", family.read_address, None)
    highest = fields.read(family.prefix + "SubnetMax", family.read_address, None)
    subnet_len = _subnet_len(fields, family, network_len, given_len) if sizes_known else None
    if subnet_len is None:
        return None
    host_bits = family.bits - network_len
    base, step = address >> host_bits << host_bits, 1 << (family.bits - subnet_len)
    end = base + (1 << host_bits)
    for which, bound in (("SubnetMin", lowest), ("SubnetMax", highest)):
        if bound is not None:
            _check_bound(fields, family, which, bound, (base, end, step))
    # The first subnet is excluded: its base would equal the network's own address.
    lowest, highest = base + step if lowest is None else lowest, end - step if highest is None else highest
    if len(fields.problems) == before and lowest > highest:
        what = f"{family.prefix}SubnetMin is above {family.prefix}SubnetMax, so no subnet can be leased"
        fields.problem(family.prefix + "SubnetMin", what, family.show(lowest), f"at most {family.show(highest)}")
    warning = f"{name}: has host bits, which do not count (got {given}; taken as {family.show(base)}/{network_len})"
    return Layout(base, network_len, subnet_len, lowest, highest, None if base == address else warning)


def _subnet_len(fields: Fields, family: FamilyRules, network_len: int, given: int) -> int | None:
    """Return the length as given or by default; None after recording a problem."""
    name = family.prefix + "SubnetLen"
    if given == 0:
        if network_len <= family.longest_network:
            return family.default_len if network_len <= family.default_len - 2 else network_len + 2
        what = f"network is too small. Minimum useful network prefix is /{family.longest_network}"
        fields.problem(family.prefix + "Network", what, f"/{network_len}", f"/{family.longest_network} or shorter")
        return None
    if given < network_len + 2:
        what = "network must be able to accommodate at least four subnets"
        fields.problem(name, what, given, f"at least {network_len + 2} in a /{network_len}")
        return None
    return given


def _check_bound(fields: Fields, family: FamilyRules, which: str, address: int, span: tuple[int, int, int]) -> None:
    """Record what is wrong with SubnetMin or SubnetMax. `span` is the network's base, its end and a subnet's size."""
    base, end, step = span
    name, shown = family.prefix + which, family.show(address)
    if not base <= address < end:
        what = f"{name} is not in the range of the {family.prefix}Network"
        fields.problem(name, what, shown, f"{family.show(base)} to {family.show(end - step)}")
    elif address % step:
        what = f"{name} is not on a {family.prefix}SubnetLen boundary: {shown}"
        fields.problem(name, what, shown, f"e.g. {family.show(address - address % step)}")
