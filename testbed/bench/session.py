"""A whole bench run, from the host: check the machine, make the lab, measure, remove the lab."""

import os
import sys
import time
from pathlib import Path

from testbed.bench.own_lab import own_lab
from testbed.bench.plan import BenchPlan
from testbed.bench.report import document
from testbed.bench.run import carry_out
from testbed.bench.show import Bar
from testbed.cluster.overlay import KERNEL_DATAPATH, KERNEL_FEATURES
from testbed.control.answers.bench import BenchAnswer, MeasuredMachine
from testbed.control.client import running_labs
from testbed.errors import WrongEnvironment
from testbed.host import doctor
from testbed.lab.clock import now

PURPOSES = frozenset({"bench", "iperf"})
"""Names of the measuring programs' purposes in doctor."""


def run(plan: BenchPlan) -> BenchAnswer:
    """Measure and return the result; nothing of the lab is left. Raises TestbedError, KeyboardInterrupt."""
    _check_machine(plan)
    others = [record.name for record in running_labs()]
    if others:
        print(f"other labs run and disturb the numbers: {', '.join(others)}", file=sys.stderr)
    since, started = now(), time.monotonic()
    try:
        with Bar(plan) as bar, own_lab(f"bench-{os.getpid()}") as lab:
            gathered = carry_out(lab, plan, bar.step, bar.round)
    except KeyboardInterrupt:
        print("interrupted: its lab is removed", file=sys.stderr)
        raise
    return document(plan, gathered, this_machine(), since, time.monotonic() - started)


def _check_machine(plan: BenchPlan) -> None:
    backends = {path.backend or path.name for path in plan.paths}
    purposes = PURPOSES | {KERNEL_FEATURES[backend] for backend in backends if backend in KERNEL_FEATURES}
    if any(path.datapath == "kernel" for path in plan.paths):
        purposes |= {*KERNEL_DATAPATH}
    failures = doctor.required_failures(doctor.checks(optional=False, also=purposes), purposes)
    if failures:
        raise WrongEnvironment("\n".join(doctor.error_line(check) for check in failures))


def this_machine() -> MeasuredMachine:
    """Describe the machine of the run."""
    processors = len(os.sched_getaffinity(0))
    return {"processors": processors, "model": _model_of_processor(), "kernel": os.uname().release}


def _model_of_processor() -> str:
    """Return the processor's name from the kernel."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return os.uname().machine
