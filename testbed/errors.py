"""Every exception that the testbed raises on purpose and that can reach the user, with its exit code.

TestbedError                 1: the requested action failed
├── InvalidInput             2: usage or configuration; asking again in the same way cannot help
│   ├── NoHistory            testing/soak: the file is not the history of a soak
│   ├── NoSuchFault          faults/catalogue: the words are not a fault
│   ├── NodeRefused          workloads/node_changes: nothing was changed
│   └── SpecError            cluster/problems: a file with all its problems
├── WrongEnvironment         3: the machine or the caller's rights do not allow it
├── EtcdFailed               4: etcd did not answer, or refused
├── Busy                     host/lab_directories: another `up` is starting this lab
├── ContainerNotRunning      pods/pod_container: it may run later
├── FaultImpossible          faults/ledger: nothing was changed
├── LabEnded                 host/launch: before it was ready
├── LabNotReady              supervisor/start: a phase did not finish in its time
├── LabNotUp                 testing/lab_choice: `up` failed under pytest
├── MeasurementFailed        a measuring program gave up, or was interrupted
├── NoAnswer                 control/client: the lab took longer than its caller would wait
├── NoSubnetYet              the node has no lease, so its pods have no addresses
├── NodeFailed               workloads/node_changes: begun, and not finished in its time
├── NotFit                   exercises/variant: the exercise cannot be made of this lab
├── NothingFree              cluster/service_addresses: every cluster IP or node port is taken
├── OutputFailed             output/standard_streams: standard output cannot be written
└── WrongConflist            cni/conflist: a file of CNI plugins that cannot be executed

The agent has a tree of its own (agent/errors). Other exceptions stay where they are raised: their callers handle them,
or pytest shows them. What the kernel refuses is an OSError, with its reason.
"""


class TestbedError(Exception):
    """A message for the user, one line for each problem, and its exit code."""

    __test__ = False  # pytest: not a test class

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        """`exit_code`: of an error reported by another process; by default the class's own."""
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code

    def within(self, where: str) -> "TestbedError":
        """Return the same error, its message prefixed with the action."""
        return TestbedError(f"{where}: {self}", self.exit_code)


class InvalidInput(TestbedError):
    """Usage or configuration is wrong."""

    exit_code = 2


class WrongEnvironment(TestbedError):
    """Something is missing on this machine, or the caller may not do this."""

    exit_code = 3


class EtcdFailed(TestbedError):
    """etcd did not answer, or refused."""

    exit_code = 4


class NoSubnetYet(TestbedError):
    """The node has no lease, so its pods have no addresses."""


class MeasurementFailed(TestbedError):
    """A measuring program failed or was interrupted; has its message."""
