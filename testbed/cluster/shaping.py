"""Bandwidth, delay, jitter and loss of a cable as tc commands for each of its ends, and the kernel's requirements.

Bandwidth is a token bucket (tbf), which nearly every kernel has; delay, jitter and loss are netem, which kernels
without modules often miss. Pure; `missing_features` is given a function that tries a command.
"""

from collections.abc import Callable, Sequence

from testbed.cluster.wiring import Cable, Shaping, Wiring

FRAME_BYTES = 1514  # a packet of 1,500 bytes with its Ethernet header
LEAST_BURST_BYTES = 10 * FRAME_BYTES
BURST_S = 0.004  # the bucket holds the rate's bytes of one tick of a slow clock (CONFIG_HZ=250)
LATENCY = "50ms"  # how long a packet may wait without a given queue size
REMEDY = "Debian's own kernel has it: apt install linux-image-amd64 (or -arm64), and reboot"

PROBES = {
    "tbf": ("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "10mbit", "burst", "15000", "latency", LATENCY),
    "netem": ("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"),
    "pfifo": ("tc", "qdisc", "add", "dev", "lo", "root", "pfifo", "limit", "10"),
}
"""Each fails if the kernel lacks the feature; run them in a temporary namespace."""


def queueing_commands(device: str, shaping: Shaping) -> list[list[str]]:
    """Return the commands that shape packets leaving through `device`, in order; twice is harmless."""
    commands = []
    place = ["root"]
    if shaping.bandwidth is not None:
        bucket = max(LEAST_BURST_BYTES, int(shaping.bandwidth * 1e6 / 8 * BURST_S))
        room = ["latency", LATENCY]
        if shaping.max_queue_size is not None:
            room = ["limit", str(bucket + shaping.max_queue_size * FRAME_BYTES)]
        rate = ["tbf", "rate", f"{shaping.bandwidth:g}mbit", "burst", str(bucket), *room]
        commands.append(["tc", "qdisc", "replace", "dev", device, *place, "handle", "1:", *rate])
        place = ["parent", "1:1"]
    queue = [] if shaping.max_queue_size is None else ["limit", str(shaping.max_queue_size)]
    if shaping.netem:
        words = ["netem", *queue]
        if shaping.delay is not None:
            words += ["delay", shaping.delay, *([shaping.jitter] if shaping.jitter else [])]
        if shaping.loss is not None:
            words += ["loss", f"{shaping.loss:g}%"]
        commands.append(["tc", "qdisc", "replace", "dev", device, *place, "handle", "10:", *words])
    elif queue and shaping.bandwidth is None:
        commands.append(["tc", "qdisc", "replace", "dev", device, *place, "handle", "10:", "pfifo", *queue])
    return commands


def needed_features(shaping: Shaping) -> list[str]:
    """Return the kernel's queueing disciplines that a cable needs."""
    features = ["tbf"] if shaping.bandwidth is not None else []
    if shaping.netem:
        features.append("netem")
    elif shaping.max_queue_size is not None and not features:
        features.append("pfifo")
    return features


def missing_features(wiring: Wiring, attempt: Callable[[Sequence[str]], str]) -> list[str]:
    """Return missing kernel features of the cables, one line each: feature, reason, cable.

    `attempt` runs a probe and returns its error.
    """
    wanted: dict[str, list[Cable]] = {}
    for cable in wiring.shaped():
        for feature in needed_features(cable.shaping):
            wanted.setdefault(feature, []).append(cable)
    lines = []
    for feature, cables in wanted.items():
        complaint = attempt(PROBES[feature])
        if complaint:
            what = ", ".join(cables[0].shaping.netem if feature == "netem" else ("bandwidth",))
            more = f" and {len(cables) - 1} more" if len(cables) > 1 else ""
            want = f"a kernel with {feature}, for {what} of {cables[0]}{more}: {REMEDY}"
            lines.append(f"environment: kernel: {feature} (got {complaint}; want {want})")
    return lines
