"""A hub on localhost that speaks as much of the real one's API as a push needs, and keeps what arrives."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_person"
USER = "me"


class Hub:
    """What the stand-in was sent.

    Attributes:
        url: its address.
        private: whether each repository that was made is, by its id.
        commits: what each commit says, by repository.
        files: content by (repository, path), once committed.
        asked: "METHOD PATH" of every request.
        refuse: a path and the status that requests to paths which hold it are answered with.
    """

    def __init__(self) -> None:
        self.url = ""
        self.private: dict[str, bool] = {}
        self.commits: dict[str, list[str]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.asked: list[str] = []
        self.refuse: tuple[str, int] | None = None
        self.stored: dict[str, bytes] = {}


@contextmanager
def hub_on_localhost() -> Iterator[Hub]:
    """A stand-in that listens for as long as the block runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, answer = respond(hub, self.path, self.body(), self.headers.get("Authorization", ""))
            hub.asked.append(f"POST {self.path}")
            self.reply(status, answer)

        def do_PUT(self) -> None:
            content = self.body()
            hub.asked.append(f"PUT {self.path}")
            oid = self.path.rpartition("/")[2]
            whole = hashlib.sha256(content).hexdigest() == oid
            if whole:
                hub.stored[oid] = content
            self.reply(200 if whole else 400, {})

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def reply(self, status: int, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: Any) -> None:
            """Nothing on the console."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def respond(hub: Hub, path: str, body: bytes, authorization: str) -> tuple[int, dict[str, Any]]:
    """What the hub does about a POST: (status, answer)."""
    if hub.refuse is not None and hub.refuse[0] in path:
        return hub.refuse[1], {"error": "not today"}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if authorization != f"Bearer {TOKEN}":
        return 401, {"error": "Invalid username or password."}
    if path == "/api/repos/create":
        return create(hub, json.loads(body))
    repository = path.removeprefix("/api/models/").removeprefix("/").removesuffix("/info/lfs/objects/batch")
    repository = "/".join(repository.removesuffix(".git").split("/")[:2])
    if repository not in hub.private:
        return 404, {"error": "Repository not found"}
    if path.endswith("/info/lfs/objects/batch"):
        return 200, {
            "transfer": "basic",
            "objects": [upload(hub, each) for each in json.loads(body)["objects"]],
        }
    if path.endswith("/preupload/main"):
        return 200, {"files": [mode(each) for each in json.loads(body)["files"]]}
    if path.endswith("/commit/main"):
        return commit(hub, repository, [json.loads(line) for line in body.splitlines()])
    return 404, {"error": f"the stand-in has no {path}"}


def create(hub: Hub, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    repository = f"{wanted.get('organization') or USER}/{wanted['name']}"
    if not repository.startswith(f"{USER}/"):
        return 403, {"error": "You don't have the rights to create a model under this namespace"}
    known = repository in hub.private
    if not known:
        hub.private[repository] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    return 409 if known else 200, {"url": f"{hub.url}/{repository}"}


def mode(file: dict[str, Any]) -> dict[str, Any]:
    large = file["path"].endswith((".safetensors", ".onnx"))
    return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


def upload(hub: Hub, wanted: dict[str, Any]) -> dict[str, Any]:
    there = {"upload": {"href": f"{hub.url}/store/{wanted['oid']}"}}
    return {**wanted, **({} if wanted["oid"] in hub.stored else {"actions": there})}


def commit(hub: Hub, repository: str, lines: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Takes all files of a commit, or none."""
    taken: dict[tuple[str, str], bytes] = {}
    for line in lines:
        value = line["value"]
        if line["key"] == "header":
            hub.commits.setdefault(repository, []).append(value["summary"])
        elif line["key"] == "file":
            taken[repository, value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile" and value["oid"] in hub.stored:
            taken[repository, value["path"]] = hub.stored[value["oid"]]
        else:
            return 400, {"error": f"the stand-in can't take {line['key']}"}
    hub.files |= taken
    return 200, {"commitUrl": f"{hub.url}/{repository}/commit/1", "commitOid": "1", "success": True}
