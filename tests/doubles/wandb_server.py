"""As much of a W&B server as wandb 0.31 asks for: it keeps runs, and hands out what a resume needs."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLACE = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}


class Server(ThreadingHTTPServer):
    """Listens on a free port of this machine.

    Attributes:
        runs: run id -> ``history`` (line number -> row), ``summary``, ``preempting``, ``exitcode`` …
        silent: take requests and never answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.silent = False
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""

    def run(self, name: str) -> dict[str, Any]:
        return self.runs.setdefault(name, {"history": {}, "summary": {}})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.silent:
            self.server.closing.wait()
        elif self.path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            answer = getattr(self, found[1] if found else "", lambda _variables: {})
            self._send({"data": answer(asked.get("variables") or {})})
        else:
            self._stream(json.loads(body or b"{}"))
            self._send({"exitcode": None, "limits": {}})

    def _send(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, sent: dict[str, Any]) -> None:
        found = re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if found is None:
            return
        run = self.server.run(found[1])
        files = sent.get("files", {})
        lines = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        for number, line in enumerate(lines["content"], lines["offset"]):
            run["history"][number] = json.loads(line)
        for line in files.get("wandb-summary.json", {"content": []})["content"]:
            run["summary"] = json.loads(line)
        run |= {key: sent[key] for key in ("preempting", "exitcode") if key in sent}

    # -- GraphQL, by the names of the operations ---------------------------------------------------

    def UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.server.run(v["name"])
        kept = ("groupName", "jobType", "displayName", "tags", "config", "notes")
        run |= {key: v[key] for key in kept if v.get(key) is not None}
        bucket = {"id": v["name"], "name": v["name"], "displayName": run.get("displayName"), "config": "{}",
                  "historyLineCount": len(run["history"]), "project": PLACE}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.server.runs.get(v["name"])
        if run is None:
            return {"model": {**PLACE, "bucket": None}}
        rows = run["history"]
        tail = [json.dumps(rows[max(rows)])] if rows else []
        bucket = {"id": v["name"], "name": v["name"], "summaryMetrics": json.dumps(run["summary"]),
                  "historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0, "tags": [],
                  "historyTail": json.dumps(tail), "eventsTail": "[]", "config": run.get("config", "{}"),
                  "wandbConfig": '{"t": 1}'}  # fmt: skip
        return {"model": {**PLACE, "bucket": bucket}}

    def CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.server.url}/upload/{name}"} for name in v["files"]]
        return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
