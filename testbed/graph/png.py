"""A picture as PNG, by librsvg's rsvg-convert."""

import shutil
import subprocess

LIMIT_S = 60.0


class NoConverter(Exception):
    """The program that makes a PNG is not on this machine."""


class ConversionFailed(Exception):
    """The program gave up; has its words."""


def png(svg: str, zoom: float = 1.5) -> bytes:
    """The PNG of an SVG document; `zoom` is pixels of it per pixel of the document."""
    program = shutil.which("rsvg-convert")
    if program is None:
        raise NoConverter("rsvg-convert")
    done = subprocess.run(
        [program, "--format=png", f"--zoom={zoom}"],
        input=svg.encode(),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise ConversionFailed(done.stderr.decode(errors="replace").strip())
    return done.stdout
