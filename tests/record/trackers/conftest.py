"""A user without account, a run's record, a W&B server that can fail in every way, and a reader of what an offline run holds."""

import json
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.run import Run

CONFIG = """\
optimizer:
  lr: 0.001
note: why not?
logger:
  project: gptshake
"""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without key, netrc or settings."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    for name in ("WANDB_DATA_DIR", "WANDB_ERROR_REPORTING"):  # set by a tracker, and to be gone with the test
        monkeypatch.setenv(name, "false")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home/.netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home/wandb"))
    yield
    import wandb

    wandb.teardown()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The record of a run that has begun."""
    run = Run.create(tmp_path / "run", id="x3k9a2pq", name="a-name-x3k9a2pq", task="train", config_yaml=CONFIG, overrides=["a=1"])
    data = {"label": "excerpt106", "tokenizer": "d" * 64, "vocab_size": 9, "store": "5" * 16, "fingerprint": "f" * 64}
    choices = {"model": "tiny", "data": "wiki_char", "tokenizer": "char"}
    run.update(data=data, choices=choices, budget={"steps": 9, "tokens_per_step": 100}, model={"parameters": 4640})
    return run


class Server(ThreadingHTTPServer):
    """Speaks as much of W&B's protocol as a run needs, and keeps what it is told. ``mode``: ok, slow (never answers), fail (500), deaf (says hello,
    then is slow), full (refuses what a run logs)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode = "ok"
        self.runs: dict[str, dict[str, Any]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""

    def told(self, run_id: str) -> dict[str, Any]:
        return self.runs.setdefault(run_id, {"upserts": [], "history": {}, "files": set(), "artifacts": {}, "used": []})

    def answer(self, name: str, v: dict[str, Any]) -> dict[str, Any] | None:
        project = {"id": "p1", "name": v.get("project") or "p", "entity": {"id": "e1", "name": v.get("entity") or "me"}}
        if name == "Viewer":
            return {"viewer": {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}}
        if name == "RunResumeStatus":
            return {"model": project | {"bucket": self.resumed(v["name"]) if v["name"] in self.runs else None}}
        if name == "UpsertBucket":
            self.told(v["name"])["upserts"].append(v)
            bucket = {"id": v["name"], "name": v["name"], "displayName": v["displayName"], "description": "", "config": "{}"}
            return {
                "upsertBucket": {"bucket": bucket | {"sweepName": v["sweep"], "project": project, "historyLineCount": 0}, "inserted": True}
            }
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in v["files"]]
            self.told(v["run"])["files"].update(v["files"])
            return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if name == "CreateArtifact":
            asked = v["input"]
            self.told(asked["runName"])["artifacts"][asked["artifactCollectionName"]] = asked["artifactTypeName"]
            one = {"id": asked["artifactCollectionName"], "state": "COMMITTED"}  # so no file of it is asked for
            return {"createArtifact": {"artifact": one | {"artifactSequence": {"latestArtifact": one}}}}
        if name == "UseArtifact":
            self.told(v["input"]["runName"])["used"].append(v["input"]["artifactID"])
            return {"useArtifact": {"artifact": {"id": v["input"]["artifactID"]}}}
        return None

    def resumed(self, run_id: str) -> dict[str, Any]:
        lines = [line for _, line in sorted(self.runs[run_id]["history"].items())]
        summary = {name: value for line in lines for name, value in json.loads(line).items()}
        return {
            "id": run_id,
            "name": run_id,
            "summaryMetrics": json.dumps(summary),
            "displayName": "",
            "logLineCount": 0,
            "historyLineCount": len(lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps(lines[-1:]),
            "eventsTail": "[]",
            "config": "{}",
            "tags": [],
            "notes": "",
            "wandbConfig": "{}",
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hello = b"__typename" in body
        if self.server.mode == "slow" or (self.server.mode == "deaf" and not hello):
            self.server.closing.wait(60)
            self.close_connection = True
            return
        if self.server.mode == "fail":
            self.send(500, {})
            return
        if self.path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:mutation|query)\s+(\w+)", asked["query"])
            data = self.server.answer(found[1] if found else "", asked.get("variables") or {})
            self.send(200, {"data": data} if data else {"errors": [{"message": "unknown"}]})
            return
        if self.path.endswith("/file_stream"):
            if self.server.mode == "full":
                self.send(403, {"error": "quota"})
                return
            history = (json.loads(body).get("files") or {}).get("wandb-history.jsonl") or {"offset": 0, "content": []}
            lines = enumerate(history["content"], start=history["offset"])
            self.server.told(self.path.split("/")[-2])["history"].update(lines)
        self.send(200, {})

    def send(self, code: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = respond

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A W&B server that answers, and a key for it."""
    server = Server()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    yield server
    server.close()


class Log:
    """What a .wandb file holds."""

    def __init__(self, file: Path) -> None:
        import wandb
        from wandb.proto import wandb_internal_pb2

        wandb.teardown()  # its service writes when it likes, and ends here
        self.records = [wandb_internal_pb2.Record.FromString(data) for data in _records(file)]
        self.run = next(record.run for record in self.of("run"))
        self.history: dict[int, dict[str, Any]] = {}
        self.times: dict[int, float] = {}
        for record in self.of("history"):
            values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            self.times[int(values["_step"])] = values["_timestamp"]
            self.history[int(values["_step"])] = {name: value for name, value in values.items() if not name.startswith("_")}
        self.summary = {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for record in self.of("summary")
            for item in record.summary.update
        }
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}

    def of(self, kind: str) -> list[Any]:
        return [record for record in self.records if record.WhichOneof("record_type") == kind]

    @property
    def artifacts(self) -> dict[str, Any]:
        """Name -> artifact, as it is logged."""
        logged = [record.artifact for record in self.of("artifact")]
        return {
            artifact.name: artifact for artifact in logged + [r.request.log_artifact.artifact for r in self.of("request")] if artifact.name
        }


def _records(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (7 bytes of header; 32 KiB blocks of crc, length, type, data)."""
    content, at, begun = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        begun += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of it, or its last part
            yield begun
            begun = b""


@pytest.fixture
def log_of() -> Callable[[Path], Log]:
    """Reads the one W&B log of a run directory that is not superseded."""

    def read(path: Path) -> Log:
        (file,) = [file for file in path.glob("wandb/*/run-*.wandb") if "superseded" not in file.parent.name]
        return Log(file)

    return read


@pytest.fixture
def within() -> Callable[..., float]:
    """Calls something and says how many seconds it took."""

    def measure(call: Callable[..., Any], *arguments: Any) -> float:
        began = time.monotonic()
        call(*arguments)
        return time.monotonic() - began

    return measure
