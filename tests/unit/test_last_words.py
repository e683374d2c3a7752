"""Why a program ended: its last line, or its panic where a stack follows."""

import pytest

from testbed.processes.supervise import last_words

SAID = "panic: cannot open database at /run/etcd/member/snap/db (file too large)"
PANIC = """\
2026-11-28 22:56:37.055346 C | mvcc/backend: cannot open database at /run/etcd/member/snap/db (file too large)
panic: cannot open database at /run/etcd/member/snap/db (file too large)

goroutine 116 [running]:
log.(*Logger).Panicf(0xc000166640, 0x10a3f24, 0x1c)
\t/usr/lib/go-1.19/src/log/log.go:208 +0x68
created by go.etcd.io/etcd/etcdserver.openBackend
\tgo.etcd.io/etcd/etcdserver/backend.go:73 +0x12a
"""
OUT_OF_MEMORY = """\
fatal error: failed to reserve page summary memory

runtime stack:
runtime.throw({0xfe3ab8?, 0x0?})
\truntime/panic.go:1047 +0x5d fp=0x7ffce7b44a58 sp=0x7ffce7b44a28 pc=0x43a1bd
runtime.rt0_go()
\truntime/asm_amd64.s:345 +0x11c fp=0x7ffce7b44d68 sp=0x7ffce7b44d60 pc=0x46e17c
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PANIC, SAID),
        (OUT_OF_MEMORY, "fatal error: failed to reserve page summary memory"),
        (f"{OUT_OF_MEMORY}started again\n", "started again"),
        (
            f"{OUT_OF_MEMORY}started again\n{PANIC}",
            SAID,
        ),
        ("one\nlast: no room\n", "last: no room"),
        ("", ""),
    ],
)
def test_the_terms_are_those_of_the_reasons(text: str, words: str) -> None:
    assert last_words(text.strip()) == words
