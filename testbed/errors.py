"""Everything that the testbed raises on purpose and that can reach the user, with the exit code that it means.

TestbedError                   1: what was asked for failed
├── InvalidInput               2: usage or configuration; asking again in the same way cannot help
├── WrongEnvironment           3: the machine or the caller's rights do not allow it
└── EtcdFailed                 4: etcd did not answer, or refused
"""


class TestbedError(Exception):
    """A message for the user, one line for each problem, and the exit code for it."""

    __test__ = False  # pytest: not a test class

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        """`exit_code`: of an error that another process reported; by default the class's own."""
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class InvalidInput(TestbedError):
    """Usage or configuration is wrong."""

    exit_code = 2


class WrongEnvironment(TestbedError):
    """This machine misses something, or the caller may not do this."""

    exit_code = 3


class EtcdFailed(TestbedError):
    """etcd did not answer, or refused."""

    exit_code = 4
