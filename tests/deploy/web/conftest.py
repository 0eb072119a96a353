"""Runs the scripts of the page in Node, where it is at hand."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetlab.deploy.web import program

SCRIPTS = Path(program.__file__).parent
NODE = shutil.which("node")


@pytest.fixture(scope="session")
def compute() -> Callable[..., dict[str, Any]]:
    if NODE is None:
        pytest.skip("no Node, which runs the scripts of the page without a browser")

    def run(**cases: Any) -> dict[str, Any]:
        command = [NODE, Path(__file__).with_name("compute.js"), SCRIPTS / "image.js", SCRIPTS / "network.js"]
        given = json.dumps({"images": [], "networks": [], "files": []} | cases)
        done = subprocess.run(command, input=given.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return dict(json.loads(done.stdout))

    return run
