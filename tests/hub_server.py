"""A Hugging Face hub on this machine: what huggingface_hub and datasets ask for, over HTTP, from folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

KINDS = {"models": "", "datasets": "datasets/"}  # of the API, and what stands before a name in other addresses


@dataclass
class Repository:
    """A repository with commits, each a folder; the last one is main."""

    commits: dict[str, Path] = field(default_factory=dict)

    def add(self, folder: Path) -> str:
        """Add a folder as a commit and return its name."""
        commit = hashlib.sha1(f"{len(self.commits)} {folder}".encode()).hexdigest()
        self.commits[commit] = folder
        return commit

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a revision."""
        return list(self.commits)[-1] if revision == "main" else revision if revision in self.commits else None


@dataclass
class Hub:
    """Repositories by kind and name, and the paths that clients asked for."""

    address: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, kind: str, name: str, folder: Path) -> str:
        """Add a commit to a repository of models or datasets."""
        return self.repositories.setdefault((kind, name), Repository()).add(folder)


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve a hub; its address is HF_ENDPOINT for clients."""
    started = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer()

        do_HEAD = do_POST = do_GET  # noqa: N815  # names of http.server

        def log_message(self, *_: Any) -> None: ...

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            started.asked.append(path)
            self.send(*respond(started, path, body))

        def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    started.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield started
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Response = tuple[int, dict[str, str], bytes]
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+))?(?:/(.*))?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


def respond(found: Hub, path: str, body: bytes) -> Response:
    """Return status, headers and content for a path."""
    if match := API.fullmatch(path):
        kind, name, what, revision, below = match.groups()
        repository = found.repositories.get((kind, name))
        commit = repository.resolve(revision or "main") if repository else None
        if repository is None or commit is None:
            return missing("RevisionNotFound" if repository else "RepoNotFound")
        files = files_of(repository.commits[commit])
        if what == "tree":
            return as_json([entry(file, content) for file, content in files.items() if file.startswith(below or "")])
        if what == "paths-info":
            wanted = paths_in(body)
            return as_json([entry(file, content) for file, content in files.items() if file in wanted])
        siblings = [{"rfilename": file} for file in files]
        return as_json({"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0})
    if match := FILE.fullmatch(path):
        kind, (name, revision, file) = "datasets" if match[1] else "models", match.groups()[1:]
        repository = found.repositories.get((kind, name))
        commit = repository.resolve(revision) if repository else None
        if repository is None or commit is None:
            return missing("RevisionNotFound" if repository else "RepoNotFound")
        content = files_of(repository.commits[commit]).get(file)
        if content is None:
            return missing("EntryNotFound", {"X-Repo-Commit": commit})
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{digest(content)}"'}, content
    return missing("EntryNotFound")


def paths_in(body: bytes) -> set[str]:
    """Return the paths that a request names, as JSON or as a form."""
    if body.startswith(b"{"):
        return set(json.loads(body)["paths"])
    return {unquote(pair.partition("=")[2]) for pair in body.decode().split("&") if pair.startswith("paths=")}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder by their paths."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def entry(file: str, content: bytes) -> dict[str, Any]:
    """Return a file as the API lists it."""
    return {"type": "file", "path": file, "size": len(content), "oid": digest(content)}


def digest(content: bytes) -> str:
    """Return the digest of a file as git has it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def as_json(value: Any) -> Response:
    """Return a JSON value."""
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def missing(code: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as the hub says it."""
    return 404, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, b"{}"
