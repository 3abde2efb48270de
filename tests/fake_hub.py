"""A small Hugging Face hub on the loopback, for tests of what is downloaded from it and uploaded to it: one revision, plain files."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT, TOKEN = "c" * 40, "hf_" + "t" * 34


class FakeHub:
    """``files``: repository -> name -> content; ``private``: repositories that only the token may see; ``asked``: what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.address = ""
        self._folder = folder

    def env(self, *, token: bool = False, offline: bool = False) -> dict[str, str]:
        """The variables with which a process asks this hub."""
        found = {"HF_ENDPOINT": self.address, "HF_HOME": str(self._folder), "HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_XET": "1"}
        return found | ({"HF_TOKEN": TOKEN} if token else {}) | {"NO_PROXY": "127.0.0.1"}

    def read(self, path: str) -> tuple[int, Any, dict[str, str]]:
        """Status, content (bytes, or what becomes JSON) and headers of a GET."""
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+)|/tree/[^?]+.*)?", path):
            repo, revision = match[1], match[2]
            if repo not in self.files:
                return 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            if revision not in (None, "main", COMMIT):
                return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
            if "/tree/" in path:
                entries = self.files[repo].items()
                tree = [{"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()} for name, content in entries]
                return 200, tree, {}
            return 200, {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files[repo]]}, {}
        match = re.fullmatch(rf"/(.+?)/resolve/(?:main|{COMMIT})/(.+)", path)
        content = self.files.get(match[1], {}).get(match[2]) if match else None
        if content is None:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        return 200, content, {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}

    def write(self, path: str, body: bytes, token: str | None) -> tuple[int, Any, dict[str, str]]:
        """The same for a POST."""
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid token"}, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo in self.files:
                return 409, {"error": "You already created this model repo", "url": f"{self.address}/{repo}"}, {}
            self.files[repo], self.private[repo] = {}, asked.get("visibility") == "private" or bool(asked.get("private"))
            return 200, {"url": f"{self.address}/{repo}", "id": repo}, {}
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}, {}
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.files[match[1]] |= {file["path"]: base64.b64decode(file["content"]) for file in files}
            return 200, {"commitUrl": f"{self.address}/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""}, {}
        return 404, {"error": path}, {}


@contextmanager
def fake_hub(folder: Path) -> Iterator[FakeHub]:
    """A hub that answers within the block; ``folder`` is the home of its clients."""
    hub = FakeHub(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(*hub.read(self.path))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._send(*hub.write(self.path, body, self.headers.get("Authorization")))

        def _send(self, status: int, content: Any, headers: dict[str, str]) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
