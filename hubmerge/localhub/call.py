"""One request as the handlers see it: path fields, caller, body, and the repo with the caller's rights checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from starlette.requests import Request

from hubmerge.localhub.accounts import Identity, may_download, may_see, may_write
from hubmerge.localhub.names import kind_of
from hubmerge.localhub.records import Commit, FileEntry, Repo
from hubmerge.localhub.refusals import bad_request, forbidden, gated, login_required, repo_not_found
from hubmerge.localhub.state import State

MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """A request to one endpoint.

    Attributes:
        params: Fields of the path, unquoted.
        body: The received body, from its start; empty for a handler that receives it itself.
    """

    state: State
    request: Request
    params: Mapping[str, str]
    identity: Identity | None
    body: BinaryIO

    @property
    def origin(self) -> str:
        """The address by which the client reached this Hub, for links: http://127.0.0.1:8000."""
        return f"http://{self.request.headers.get('host', '127.0.0.1')}"

    @property
    def content_origin(self) -> str:
        """Another origin of this same server, so that clients treat content addresses as foreign, as they must.

        On loopback that is the other name of this machine; elsewhere there is no other, and it is the same.
        """
        host = self.request.headers.get("host", "127.0.0.1")
        name, colon, port = host.rpartition(":") if ":" in host else (host, "", "")
        other = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}.get(name, name)
        return f"http://{other}{colon}{port}"

    @property
    def kind(self) -> str:
        """`models`, `datasets` or `spaces`, from an API path or a web path."""
        return self.params.get("kind") or self.params["prefix"].rstrip("/") or "models"

    @property
    def anonymous(self) -> bool:
        """Whether no token was sent."""
        return self.identity is None

    def flag(self, name: str) -> bool:
        """Returns whether a query parameter says yes."""
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def values(self, name: str) -> list[str]:
        """Returns every value of a query parameter, however the client writes lists: a=1&a=2, a[]=1, a=1,2."""
        params = self.request.query_params
        return [
            part for text in (*params.getlist(name), *params.getlist(f"{name}[]")) for part in text.split(",") if part
        ]

    def json(self) -> dict[str, Any]:
        """Returns the body, which must be a JSON object; {} for none at all."""
        self.body.seek(0)
        try:
            value = json.loads(self.body.read(MAX_JSON_BYTES) or b"{}")
        except ValueError:
            raise bad_request("The body is not JSON") from None
        if not isinstance(value, dict | None):
            raise bad_request("The body is not a JSON object")
        return value or {}

    def records(self, name: str) -> list[dict[str, Any]]:
        """Returns a field of the JSON body that must be a list of objects."""
        value = self.json().get(name, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise bad_request(f'"{name}" must be a list of objects')
        return value

    def form(self) -> dict[str, Any]:
        """Returns the fields of a form, each a list, or the JSON object that may be sent in its place."""
        if "json" in self.request.headers.get("content-type", ""):
            return self.json()
        return parse_qs(self.body.read(MAX_JSON_BYTES).decode("utf-8", "replace"))

    def user(self) -> Identity:
        """Returns who calls; refuses an anonymous caller."""
        if self.identity is None:
            raise login_required()
        return self.identity

    def writer(self) -> Identity:
        """Returns who calls; refuses an anonymous caller and a token that only reads."""
        identity = self.user()
        if not identity.can_write:
            raise forbidden("This token has no write permission")
        return identity

    def repo(self) -> Repo:
        """Returns the repo of the path, if the caller may know of it."""
        return self.visible(self.kind, self.params["repo"])

    def visible(self, kind: str, repo_id: str) -> Repo:
        """Returns any repo that the caller may know of; private and missing ones look the same otherwise."""
        repo = self.state.repos.find(kind, repo_id)
        if repo is None or not may_see(self.identity, repo):
            raise repo_not_found(anonymous=self.anonymous)
        return repo

    def downloadable(self, repo: Repo) -> Repo:
        """Returns the repo, if it is not gated or the caller was let in."""
        if not may_download(self.identity, repo):
            raise gated(repo.type, repo.id, anonymous=self.anonymous)
        return repo

    def writable(self, repo: Repo) -> Repo:
        """Returns the repo, if the caller may change it."""
        self.writer()
        if not may_write(self.identity, repo):
            raise forbidden(f"You don't have the rights to write to {repo.id}")
        return repo

    def commit(self, repo: Repo) -> Commit:
        """Returns the commit that the path's revision names, main where it names none."""
        return self.state.repos.resolve(repo, self.params.get("rev", "main"))

    def tree(self, repo: Repo) -> dict[str, FileEntry]:
        """Returns the files at the path's revision."""
        return self.state.repos.tree(repo, self.commit(repo))

    def repo_in_body(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Returns kind and id from `{name, organization, type}`; a bare name is one of the caller's own."""
        namespace = body.get("organization") or self.user().user
        name = str(body.get("name", ""))
        return kind_of(body.get("type")), name if "/" in name else f"{namespace}/{name}"
