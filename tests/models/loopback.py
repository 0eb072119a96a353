"""A small Hugging Face Hub on the loopback address: repositories in memory, the few endpoints that a client needs."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """``files`` holds contents by (repository, file); ``requests`` what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.requests = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.serve(body=False)

    def do_GET(self):
        self.serve(body=True)

    def serve(self, body):
        self.server.requests.append((self.command, self.path))
        if self.path.startswith("/api/models/"):
            self.describe(body)
            return
        match = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/([\w./-]+)", self.path)
        content = self.server.files.get((match[1], match[3])) if match else None
        if content is None:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound" if match else "RepoNotFound"}, body)
            return
        commit = match[2] if len(match[2]) == 40 else COMMIT
        self.answer(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}, body)

    def describe(self, body):
        """What a repository is, and the list of its files."""
        repository = "/".join(self.path.split("/")[3:5])
        files = {name: content for (owner, name), content in self.server.files.items() if owner == repository}
        found = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        if "/tree/" in self.path:
            found = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        headers = {"Content-Type": "application/json"} | ({} if files else {"X-Error-Code": "RepoNotFound"})
        self.answer(200 if files else 404, json.dumps(found).encode(), headers, body)

    def do_POST(self):
        self.server.requests.append((self.command, self.path))
        sent = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self.chunks()
        )
        repository = "/".join(self.path.split("/")[3:5])
        if self.path == "/api/repos/create":
            made = json.loads(sent)
            found = {"url": f"{self.server.address}/{made.get('organization', 'me')}/{made['name']}"}
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(sent)["files"]]
            found = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        elif "/commit/" in self.path:
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[repository, line["value"]["path"]] = content
            address = f"{self.server.address}/{repository}/commit/{COMMIT}"
            found = {"commitUrl": address, "commitOid": COMMIT, "success": True}
        else:
            found = {"errors": [], "warnings": []}  # validate-yaml
        self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, True)

    def chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, content, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        """Nothing: the test says what it wants to see."""


@contextmanager
def serve():
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


@pytest.fixture
def hub():
    with serve() as running:
        yield running


@pytest.fixture
def client(tmp_path):
    """Runs code in a process of its own, whose hub is at that address; the cache stays between calls."""

    def run(code, address):
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_loopback"}
        environment |= {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, *(["-c", code] if isinstance(code, str) else code)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run
