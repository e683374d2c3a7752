"""Numbers of netlink requests: none is given out twice, and none is the kernel's own."""

from agent.kernel.read import SequenceNumbers


def test_no_number_is_used_twice_whether_alone_or_in_a_batch() -> None:
    numbers = SequenceNumbers()
    given = [numbers.alloc(), *numbers.alloc_multi(300)]
    for number in given:
        numbers.free(number, ban=255)
    given += [numbers.alloc() for _ in range(300)]
    assert len(set(given)) == len(given)
    assert 0 not in given, "announcements of the kernel have it"
