"""Flags and environment: Go's spelling, flannel's names and defaults, every mistake at once."""

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.errors import UsageError
from agent.options.command_line import help_text, parse_options, without_effect
from agent.options.options import FLAG_OF, FLAGS, UNSUPPORTED, Options


def problems(*argv: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse_options(argv, environ or {})
    return str(caught.value).splitlines()


def parse(*argv: str, environ: Mapping[str, str] | None = None) -> Options:
    return parse_options(argv, environ or {})


def test_defaults_are_those_of_flannel() -> None:
    options = parse()
    assert options.command == "run"
    assert options.etcd_endpoints == ("http://127.0.0.1:4001", "http://127.0.0.1:2379")
    assert options.etcd_prefix == "/coreos.com/network"
    assert options.subnet_file == Path("/run/flannel/subnet.env")
    assert options.docker_opts_file is None
    assert options.subnet_lease_ttl_s == 24 * 3600
    assert options.subnet_lease_renew_margin_s == 3600
    assert (options.ip_masq, options.ip_masq_fully_random, options.forward_rules) == (False, True, True)
    assert (options.resync_s, options.bridge, options.healthz_port) == (5, None, None)
    assert (options.iface, options.public_ip, options.journal) == ((), None, None)
    assert options.node_name


@pytest.mark.parametrize("spelling", [["-iface=e0"], ["--iface=e0"], ["-iface", "e0"], ["--iface", "e0"]])
def test_every_go_spelling_of_a_flag_is_read(spelling: list[str]) -> None:
    assert parse(*spelling).iface == ("e0",)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("-ip-masq", True),
        ("--ip-masq=true", True),
        ("--ip-masq=1", True),
        ("--ip-masq=F", False),
        ("--ip-masq=0", False),
    ],
)
def test_a_switch_needs_no_value_and_may_be_turned_off(word: str, value: bool) -> None:
    assert parse(word, environ={"FLANNELD_IP_MASQ": "true"}).ip_masq is value


@pytest.mark.row("B1")
def test_a_switch_takes_no_second_argument_as_its_value() -> None:
    assert problems("--ip-masq", "false") == [
        "command line: unexpected argument (got 'false'; want flags only after a command)"
    ]


def test_the_environment_sets_what_no_flag_sets() -> None:
    environ = {
        "FLANNELD_ETCD_PREFIX": "/other",
        "FLANNELD_BRIDGE": "",
        "FLANNELD_IFACE": "e9",
        "FLANNELD_HEALTHZ_PORT": "1",
    }
    options = parse("--healthz-port=2", environ=environ)
    assert (options.etcd_prefix, options.bridge, options.iface, options.healthz_port) == ("/other", None, ("e9",), 2)


@pytest.mark.row("B1")
def test_a_mistake_in_the_environment_names_the_variable() -> None:
    assert problems(environ={"FLANNELD_IPTABLES_RESYNC": "soon"}) == [
        "FLANNELD_IPTABLES_RESYNC: not a whole number (got 'soon'; want 1 to 3600 seconds)"
    ]


@pytest.mark.parametrize(
    ("variable", "text"),
    [("FLANNELD_ETCD_USERNAME", "u"), ("FLANNELD_ETCD_PASSWORD", "p"), ("FLANNELD_REVOKE", "true")],
)
@pytest.mark.row("B1")
def test_a_contradiction_in_the_environment_names_the_variable(variable: str, text: str) -> None:
    (line,) = problems(environ={variable: text})
    assert line.startswith(f"{variable}: ")


def test_every_option_but_the_command_is_one_flag_with_a_default_that_its_own_parser_takes() -> None:
    assert [field.name for field in fields(Options)] == ["command", *FLAG_OF]
    assert Options() == parse()
    for flag in FLAGS:
        if flag.value and flag.default:
            assert parse(f"--{flag.name}={flag.default}") == parse()


def test_iface_may_be_repeated_and_any_other_flag_takes_the_last() -> None:
    options = parse("--iface=e0", "--iface", "192.168.8.227", "--bridge=a", "--bridge=b")
    assert options.iface == ("e0", "192.168.8.227")
    assert options.bridge == "b"


@pytest.mark.row("B1")
def test_every_mistake_is_reported_at_once() -> None:
    lines = problems("--ifcae", "e0", "--healthz-port=x", "--ip-masq=maybe", "--subnet-lease-ttl=1d")
    assert [line.partition(":")[0] for line in lines] == [
        "command line",
        "--subnet-lease-ttl",
        "--ip-masq",
        "--healthz-port",
    ]
    assert all("(got " in line and "; want " in line for line in lines)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--ifcae=e0"], "command line: unknown flag (got '--ifcae'; want --iface?)"),
        (["--qqqqq"], "command line: unknown flag (got '--qqqqq'; want a flag of --help)"),
        (["--subnet-file"], "--subnet-file: has no value (got nothing; want FILE)"),
        (
            ["cleenup"],
            "command line: unknown command; did you mean cleanup? (got 'cleenup'; want one of run, cleanup, bridge)",
        ),
        (["run", "now"], "command line: unexpected argument (got 'now'; want flags only after a command)"),
        (["bridge"], "--bridge: missing (got nothing; want the name of the bridge, e.g. docker0)"),
    ],
)
@pytest.mark.row("B1")
def test_a_word_that_is_no_flag_is_named_with_a_near_match(argv: list[str], line: str) -> None:
    assert problems(*argv) == [line]


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
@pytest.mark.row("B1")
def test_a_flag_of_flannel_that_is_unsupported_is_refused(name: str) -> None:
    (line,) = problems(f"--{name}=x")
    assert line.startswith(f"--{name}: not supported by this agent")
    (line,) = problems(environ={"FLANNELD_" + name.upper().replace("-", "_"): "x"})
    assert "not supported by this agent" in line


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty endpoint"),
        (":2379", "without http"),
        ("ftp://h:1", "unknown scheme ftp"),
        ("http://h:0", "port 0"),
        ("http://h:65536", "bad port"),
        ("http://h:x", "bad port"),
        ("http://h", "without a port"),
        ("http://:2379", "without a host"),
        ("http://a b:1", "bad host"),
        ("http://$(id):1", "bad host"),
        ("http://a\nb:1", "bad host"),
        ("http://[::1:2379", "not a URL"),
        ("http://h:1/path", "more than host and port"),
        ("http://u:p@h:1", "more than host and port"),
    ],
)
@pytest.mark.row("B2")
def test_a_bad_endpoint_is_quoted_beside_good_ones(text: str, part: str) -> None:
    (line,) = problems(f"--etcd-endpoints=http://a:1,{text}")
    assert part in line
    assert f"(got {text!r}; want " in line


@pytest.mark.row("B2")
def test_each_bad_endpoint_has_its_own_line() -> None:
    assert len(problems("--etcd-endpoints=:1,http://ok:1,http://h:0,")) == 3


def test_endpoints_lose_a_final_slash_and_may_be_ipv6() -> None:
    assert parse("--etcd-endpoints=http://a:1/, https://[::1]:2379").etcd_endpoints == (
        "http://a:1",
        "https://[::1]:2379",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0.0.0", "is the unspecified address"),
        ("127.1", "not an IP address"),
        ("127.0.0.1", "is a loopback address"),
        ("224.0.0.1", "is a multicast address"),
        ("255.255.255.255", "is the broadcast address"),
        ("240.0.0.1", "is in the reserved range"),
        ("0.1.2.3", "this network"),
        ("256.1.1.1", "not an IP address"),
        ("::1", "an IPv6 address"),
    ],
)
@pytest.mark.row("B4")
def test_a_public_ip_that_no_peer_can_reach_is_refused_with_its_reason(text: str, reason: str) -> None:
    (line,) = problems(f"--public-ip={text}")
    assert reason in line
    assert repr(text) in line


def test_a_public_ip_is_taken() -> None:
    assert parse("--public-ip=192.168.8.227").public_ip == IPv4Address("192.168.8.227")


@pytest.mark.parametrize("text", ["0", "-1", "1440", "1000000000", "ten", "1.5", ""])
@pytest.mark.row("B5")
def test_the_renew_margin_has_flannels_range(text: str) -> None:
    (line,) = problems(f"--subnet-lease-renew-margin={text}")
    assert "want 1 to 1439 minutes" in line


@pytest.mark.row("B5")
def test_an_asked_for_margin_must_be_below_the_ttl_but_the_default_gives_way() -> None:
    assert parse("--subnet-lease-ttl=30s").subnet_lease_ttl_s == 30
    (line,) = problems("--subnet-lease-ttl=30s", "--subnet-lease-renew-margin=5")
    assert line.startswith("--subnet-lease-renew-margin: not below the lease's life (got 5; want less than")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("24h", 86400), ("1h30m", 5400), ("2000ms", 2)]
)
def test_the_ttl_is_a_go_duration(text: str, seconds: int) -> None:
    assert parse(f"--subnet-lease-ttl={text}").subnet_lease_ttl_s == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "1d", "1s", "2500ms", "-5s", "5m x", "9999999h"])
def test_a_ttl_that_etcd_would_not_grant_is_refused(text: str) -> None:
    (line,) = problems(f"--subnet-lease-ttl={text}")
    assert line.startswith("--subnet-lease-ttl: ")


@pytest.mark.parametrize(
    ("argv", "start"),
    [
        (["--etcd-certfile=c"], "--etcd-certfile: has no effect alone (got no --etcd-keyfile;"),
        (["--etcd-keyfile=k"], "--etcd-keyfile: has no effect alone (got no --etcd-certfile;"),
    ],
)
@pytest.mark.row("B7")
def test_half_a_tls_pair_is_refused(argv: list[str], start: str) -> None:
    (line,) = problems("--etcd-endpoints=https://h:1", *argv)
    assert line.startswith(start)


@pytest.mark.row("B7")
def test_tls_files_with_a_plain_endpoint_are_refused() -> None:
    (line,) = problems("--etcd-endpoints=https://a:1,http://b:1", "--etcd-cafile=ca.pem")
    assert "want https:// for all" in line


@pytest.mark.row("B7")
def test_the_password_is_in_no_error_and_no_text_of_the_options() -> None:
    secret = "s3cr3t-of-etcd"
    for environ, argv in (({"FLANNELD_ETCD_PASSWORD": secret}, []), ({}, [f"--etcd-password={secret}"])):
        assert secret not in "".join(problems(*argv, "--nope", environ=environ))
        options = parse("--etcd-username=u", *argv, environ=environ)
        assert options.etcd_password == secret
        assert secret not in repr(options)
    assert secret not in "".join(problems("--etcd-pasword", secret))
    assert secret not in "".join(problems(f"--etcd-pasword={secret}"))


@pytest.mark.parametrize("name", ["a b", "x/y", "sixteen-letters-", "-x", "$(id)", "a\nb", "bücke"])
@pytest.mark.row("B13")
def test_a_bridge_needs_a_name_that_the_kernel_and_a_shell_take(name: str) -> None:
    (line,) = problems(f"--bridge={name}")
    assert line.startswith("--bridge: not an interface name")


@pytest.mark.row("B13")
@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 254])
def test_a_node_name_is_one_short_line(name: str) -> None:
    (line,) = problems(f"--node-name={name}")
    assert line.startswith("--node-name: not a name (got '")


@pytest.mark.row("B1")
def test_numbers_show_their_range_and_unit() -> None:
    assert problems("--healthz-port=70000", "--v=x", "--iptables-resync=0") == [
        "--iptables-resync: out of range (got '0'; want 1 to 3600 seconds)",
        "--healthz-port: out of range (got '70000'; want 0 to 65535)",
        "--v: not a whole number (got 'x'; want 0 to 10)",
    ]


def test_a_prefix_keeps_a_missing_first_slash_and_loses_surplus_ones() -> None:
    assert parse("--etcd-prefix=coreos.com//network/").etcd_prefix == "coreos.com/network"
    assert problems("--etcd-prefix=/")


def test_revoke_belongs_to_cleanup() -> None:
    assert parse("cleanup", "--revoke").revoke is True
    assert problems("--revoke")[0].startswith("--revoke: belongs to cleanup")


def test_help_explains_every_flag_with_its_variable() -> None:
    text = help_text()
    for flag in FLAGS:
        assert f"\n  --{flag.name}" in text
        assert flag.name in ("help", "version") or f"        {flag.variable}\n" in text
        assert flag.help.split()[0] in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
def test_help_is_asked_for_in_three_ways(word: str) -> None:
    assert parse(word).help is True


def test_variables_of_flannels_kubernetes_manager_are_taken_and_said_to_mean_nothing() -> None:
    environ = {"EVENT_QUEUE_DEPTH": "5000", "CONT_WHEN_CACHE_NOT_READY": "false", "PATH": "/bin"}
    assert [line.partition(":")[0] for line in without_effect([], environ)] == [
        "CONT_WHEN_CACHE_NOT_READY=false",
        "EVENT_QUEUE_DEPTH=5000",
    ]
    assert parse_options([], environ) == parse_options([], {})
    assert without_effect([], {"EVENT_QUEUE_DEPTH": ""}) == []


@pytest.mark.parametrize("words", [["--vmodule=a=2,b=3"], ["-vmodule", "a=2,b=3"]])
def test_flags_of_flannels_logger_are_taken_and_said_to_mean_nothing(words: list[str]) -> None:
    argv, environ = [*words, "--log_backtrace_at", "x.go:1", "--iface=e0"], {"FLANNELD_VMODULE": "c=1"}
    assert parse(*argv, environ=environ) == parse("--iface=e0")
    assert [line.partition(": ")[0] for line in without_effect(argv, environ)] == [
        "--vmodule=a=2,b=3",
        "--log_backtrace_at=x.go:1",
        "FLANNELD_VMODULE=c=1",
    ]
    assert problems("--vmodule") == ["--vmodule: has no value (got nothing; want one, or the flag left out)"]


@pytest.mark.row("B1")
@pytest.mark.parametrize("argv", [["--rules"], ["bridge", "--bridge=b", "--rules"], ["cleanup", "--rules", "--revoke"]])
def test_rules_alone_are_removed_by_cleanup_which_then_keeps_the_lease(argv: list[str]) -> None:
    (line,) = problems(*argv)
    assert line.startswith("--rules: belongs to cleanup, without --revoke")
