"""Many TCP streams between pods, each hashed at both ends and timed where it arrives."""

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from testbed.testing.lab_handle import LabHandle

PORT = 40_200
LIMIT_S = 300.0

# Standard library only, because it runs in containers: `serve` or `send ADDRESS COUNT SEED`, until the file exists.
# A stream's contents are random by its seed; the end that receives answers with its hash at the end.
PROGRAM = """
import asyncio, hashlib, json, os, random, sys, time
port, over, block, pause_s = PORT, "/tmp/streams-over", 4096, 0.02

receiving = set()

async def receive(reader, writer):
    receiving.add(writer)
    try:
        await take(reader, writer)
    finally:
        receiving.discard(writer)

async def take(reader, writer):
    digest, length, last, gaps = hashlib.sha256(), 0, time.monotonic(), []
    while data := await reader.read(65536):
        now = time.monotonic()
        gaps.append(now - last)
        last, length = now, length + len(data)
        digest.update(data)
    writer.write(json.dumps([digest.hexdigest(), length, max(gaps, default=0)]).encode())
    writer.write_eof()
    await writer.drain()
    writer.close()

async def send(address, seed):
    chosen, digest, length = random.Random(seed), hashlib.sha256(), 0
    found = {"seed": seed, "error": ""}
    try:
        reader, writer = await asyncio.open_connection(address, port)
        while not os.path.exists(over):
            data = chosen.randbytes(block)
            digest.update(data)
            length += block
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(pause_s)
        writer.write_eof()
        there, received, gap = json.loads(await asyncio.wait_for(reader.read(), 60))
        writer.close()
        found.update(equal=there == digest.hexdigest() and received == length, bytes=received, gap_s=gap)
    except Exception as error:
        found.update(error=str(error) or type(error).__name__, equal=False, bytes=length, gap_s=0.0)
    return found

async def main():
    if sys.argv[1] == "serve":
        await asyncio.start_server(receive, "", port)
        while receiving or not os.path.exists(over):
            await asyncio.sleep(0.1)
        return
    address, count, seed = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    found = await asyncio.gather(*(send(address, seed + number) for number in range(count)))
    print(json.dumps(found))

asyncio.run(main())
""".replace("PORT", str(PORT), 1)


@dataclass(frozen=True, slots=True)
class Stream:
    """What became of one."""

    seed: int
    error: str
    """A reset, a time-out, anything that TCP tells a program; empty: none."""
    equal: bool
    """Whether both ends have the same length and hash."""
    bytes: int
    gap_s: float
    """The longest time in which nothing arrived."""


class Streams:
    """Streams from each of these pods to the next, round in a ring; they flow until `end`."""

    def __init__(self, lab: LabHandle, pods: Sequence[str], each: int) -> None:
        self._lab, self._pods = lab, pods
        self._threads = ThreadPoolExecutor(max_workers=2 * len(pods))
        self._senders: list[Future[str]] = []
        for pod in pods:
            self._threads.submit(lab.exec, pod, "python3", "-c", PROGRAM, "serve", timeout_s=LIMIT_S)
        for pod in pods:
            lab.wait_until(lambda pod=pod: self._listens(pod), 60, f"{pod} listens")  # type: ignore[misc]  # mypy and defaults
        addresses = {pod.name: str(pod.address) for pod in lab.pods.values()}
        for number, pod in enumerate(pods):
            words = [addresses[pods[(number + 1) % len(pods)]], str(each), str(number * each)]
            self._senders.append(self._threads.submit(self._send, pod, words))
        self.count = each * len(pods)

    def established(self) -> int:
        """Return how many streams there are at the ends that receive."""
        return sum(
            len(self._lab.exec(pod, "ss", "-Htn", "state", "established", f"sport = :{PORT}").check().splitlines())
            for pod in self._pods
        )

    def end(self) -> list[Stream]:
        """Let every stream end as it would, and say what became of it."""
        for pod in self._pods:
            self._lab.exec(pod, "touch", "/tmp/streams-over").check()
        found = [Stream(**one) for sender in self._senders for one in json.loads(sender.result(LIMIT_S))]
        self._threads.shutdown()
        return found

    def _send(self, pod: str, words: Sequence[str]) -> str:
        return self._lab.exec(pod, "python3", "-c", PROGRAM, "send", *words, timeout_s=LIMIT_S).check()

    def _listens(self, pod: str) -> bool:
        return bool(self._lab.exec(pod, "ss", "-Htln", f"sport = :{PORT}").check().strip())
