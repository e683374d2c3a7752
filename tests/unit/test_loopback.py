"""What verbs say when they cannot listen."""

import pytest

from testbed.command.loopback import listen
from testbed.errors import WrongEnvironment


def test_a_taken_port_is_a_problem_of_the_machine_in_one_line() -> None:
    with listen("forward", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(WrongEnvironment) as refused:
            listen("ui: --port", port)
    told = f"ui: --port: cannot listen (got 127.0.0.1:{port}, Address already in use; want a free port)"
    assert (str(refused.value), refused.value.exit_code) == (told, 3)
