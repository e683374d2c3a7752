"""The Vagrantfile is valid, and what it makes is made by the same script as everywhere else."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_vagrant_takes_it(tmp_path: Path) -> None:
    if shutil.which("vagrant") is None:
        pytest.skip("no vagrant (want: apt-get install vagrant vagrant-libvirt)")
    environment = os.environ | {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_DOTFILE_PATH": str(tmp_path / "state")}
    plugins = subprocess.run(["vagrant", "plugin", "list"], env=environment, capture_output=True, text=True, check=True)
    # Without a provider it looks at all but the providers' settings.
    without = [] if "vagrant-libvirt" in plugins.stdout else ["--ignore-provider"]
    words = ["vagrant", "validate", "--no-color", *without]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Vagrantfile validated successfully." in done.stdout


def test_its_machine_is_provisioned_by_the_script_that_provisions_every_other() -> None:
    inline = re.search(
        r'config\.vm\.provision "shell", inline: "/opt/testbed/(.*)"', (ROOT / "Vagrantfile").read_text()
    )
    assert inline is not None
    assert f"\n        {inline[1]}\n" in (ROOT / "scripts" / "bare-machine").read_text()
    assert '"$root/scripts/bare-machine" ' in (ROOT / "scripts" / "vm").read_text()
