"""A stand-in for the Hub's HTTP interface: the routes that the client uses to push and pull small files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40


class HubServer:
    """Repositories by name, each a mapping from file to content; `read_only` refuses every write."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.read_only = False
        self.requests: list[str] = []
        self.url = ""


@contextmanager
def serving() -> Iterator[HubServer]:
    """The server, on a free port of this machine."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, body: Any = None, code: int = 200, headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def refuse(self, code: int, reason: str) -> None:
            self.answer({"error": reason}, code, {"X-Error-Code": reason, "X-Error-Message": reason})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            hub.requests.append(path)
            if path.startswith("/api/models/"):
                parts = path.removeprefix("/api/models/").split("/")
                name, rest = "/".join(parts[:2]), parts[2:]
                if name not in hub.repositories:
                    return self.refuse(404, "RepoNotFound")
                files = hub.repositories[name]
                if rest[:1] == ["tree"]:
                    return self.answer([entry(file, files[file]) for file in files])
                siblings = [{"rfilename": file, "size": len(files[file])} for file in files]
                return self.answer({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []})
            name, _, rest = path.lstrip("/").partition("/resolve/")
            file = rest.partition("/")[2]
            if name not in hub.repositories or file not in hub.repositories[name]:
                return self.refuse(404, "EntryNotFound" if name in hub.repositories else "RepoNotFound")
            data = hub.repositories[name][file]
            return self.answer(data, headers={"ETag": f'"{oid(data)}"', "X-Repo-Commit": COMMIT})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requests.append(self.path)
            if hub.read_only:
                return self.refuse(403, "Forbidden")
            if self.path == "/api/repos/create":
                about = json.loads(body)
                name = "/".join(part for part in (about.get("organization"), about["name"]) if part)
                if name in hub.repositories:
                    return self.answer({"url": f"{hub.url}/{name}"}, 409)
                hub.repositories[name] = {".gitattributes": b""}
                return self.answer({"url": f"{hub.url}/{name}", "id": name})
            if not self.path.startswith("/api/models/"):
                return self.answer({})
            parts = self.path.removeprefix("/api/models/").split("/")
            name = "/".join(parts[:2])
            if parts[2] == "preupload":
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for file in json.loads(body)["files"]
                ]
                return self.answer({"files": files})
            for line in body.splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] == "file":
                    hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "deletedFile":
                    del hub.repositories[name][value["path"]]
            return self.answer(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"{hub.url}/{name}/commit/{COMMIT}",
                    "hookOutput": "",
                }
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": oid(data)}
