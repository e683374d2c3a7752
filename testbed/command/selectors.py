"""`-l`: the labels of the objects that a verb is about."""

from collections.abc import Callable
from typing import Any

import click

from testbed.cluster.selectors import Requirement, parse_selector


def read_selector(text: str | None) -> tuple[Requirement, ...]:
    """Parse the argument of `-l`. Raises click.UsageError."""
    if text is None:
        return ()
    try:
        return parse_selector(text)
    except ValueError as error:
        raise click.UsageError(f"-l: {error}", click.get_current_context()) from error


def selector_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-l`, as for every verb that takes labels."""
    text = "Only objects with these labels: KEY=VALUE, KEY!=VALUE, KEY, !KEY, KEY in (A, B); joined by commas."
    return click.option("-l", "--selector", metavar="LABELS", help=text)(function)
