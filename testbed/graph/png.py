"""A picture as PNG, by librsvg's rsvg-convert."""

import shutil
import subprocess

from testbed.errors import TestbedError, WrongEnvironment

LIMIT_S = 60.0


def png(svg: str, zoom: float = 1.5) -> bytes:
    """Convert an SVG document to PNG; `zoom` is output pixels per pixel of the document."""
    program = shutil.which("rsvg-convert")
    if program is None:
        want = "want the program: apt install librsvg2-bin; or -o svg, which needs nothing"
        raise WrongEnvironment(f"environment: rsvg-convert (got none on PATH; {want})")
    try:
        done = subprocess.run(
            [program, "--format=png", f"--zoom={zoom}"],
            input=svg.encode(),
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"graph: rsvg-convert: no end after {LIMIT_S:g} s") from error
    if done.returncode:
        raise TestbedError(f"graph: rsvg-convert: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
