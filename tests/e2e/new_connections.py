"""TCP connections that begin one after the other between pods, and from nodes to pods, each hashed at both ends."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from testbed.testing.lab_handle import LabHandle

PORT = 40_300
LIMIT_S = 300.0

# Standard library only, because it runs in containers: `serve FILE`, or `begin FILE PAUSE_S SEED ADDRESS …`, until the
# file exists. A connection's contents are random by its seed; the server answers with their hash.
PROGRAM = """
import asyncio, hashlib, itertools, json, os, random, sys
port, limit_s = PORT, 200
over = sys.argv[2]

async def answer(reader, writer):
    digest = hashlib.sha256()
    while data := await reader.read(65536):
        digest.update(data)
    writer.write(digest.hexdigest().encode())
    await writer.drain()
    writer.close()

async def connect(address, seed):
    chosen = random.Random(seed)
    data = chosen.randbytes(chosen.randrange(1, 100_000))
    found = {"to": address, "seed": seed, "error": "", "equal": False, "seconds": 0.0}
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(data)
            writer.write_eof()
            found["equal"] = await reader.read() == hashlib.sha256(data).hexdigest().encode()
            writer.close()
    except OSError as error:
        found["error"] = str(error) or type(error).__name__
    found["seconds"] = loop.time() - began
    return found

async def main():
    if sys.argv[1] == "serve":
        await asyncio.start_server(answer, "", port, backlog=1024)
        while not os.path.exists(over):
            await asyncio.sleep(0.1)
        return
    pause_s, seed, addresses = float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
    begun = []
    for number in itertools.count():
        if os.path.exists(over):
            break
        begun.append(asyncio.create_task(connect(addresses[number % len(addresses)], seed + number)))
        await asyncio.sleep(pause_s)
    print(json.dumps(await asyncio.gather(*begun)))

asyncio.run(main())
""".replace("PORT", str(PORT), 1)


@dataclass(frozen=True, slots=True)
class Connection:
    """What became of one."""

    to: str
    seed: int
    error: str
    """What `connect`, `send` or `recv` failed with; empty: none did."""
    equal: bool
    """Whether the server received what was sent."""
    seconds: float
    """From the call of `connect` to the server's answer."""


class NewConnections:
    """From each of these pods and nodes, a new connection every `pause_s` seconds to each pod in turn, until `end`."""

    def __init__(self, lab: LabHandle, routes: Mapping[str, Sequence[str]], pause_s: float, seed: int) -> None:
        """`routes`: the pods that a pod or node connects to, by its name."""
        self._lab = lab
        self._enough, self._served = f"/tmp/enough-{seed}", f"/tmp/served-{seed}"
        self._servers = sorted({pod for pods in routes.values() for pod in pods})
        self._threads = ThreadPoolExecutor(max_workers=len(self._servers) + len(routes))
        for pod in self._servers:
            self._threads.submit(self._run, pod, "serve", self._served)
        for pod in self._servers:
            lab.wait_until(lambda pod=pod: self._listens(pod), 60, f"{pod} listens")  # type: ignore[misc]  # mypy and defaults
        addresses = {pod.name: str(pod.address) for pod in lab.pods.values()}
        self._clients: dict[str, Future[str]] = {}
        for place, (name, pods) in enumerate(routes.items()):
            words = [f"{pause_s:g}", str(seed + place * 100_000), *(addresses[pod] for pod in pods)]
            self._clients[name] = self._threads.submit(self._run, name, "begin", self._enough, *words)

    def end(self) -> list[Connection]:
        """Begin no more, wait for the answers of all, and say what became of each."""
        for name in self._clients:
            self._lab.exec(name, "touch", self._enough).check()
        found = [Connection(**one) for client in self._clients.values() for one in json.loads(client.result(LIMIT_S))]
        for pod in self._servers:
            self._lab.exec(pod, "touch", self._served).check()
        self._threads.shutdown()
        for place in {*self._clients, *self._servers}:
            self._lab.exec(place, "rm", "-f", self._enough, self._served).check()
        return found

    def _run(self, place: str, *words: str) -> str:
        return self._lab.exec(place, "python3", "-c", PROGRAM, *words, timeout_s=LIMIT_S).check()

    def _listens(self, pod: str) -> bool:
        return bool(self._lab.exec(pod, "ss", "-Htln", f"sport = :{PORT}").check().strip())
