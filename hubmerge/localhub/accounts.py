"""Users, organisations, tokens, and who may do what."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hubmerge.localhub.json_file import read_json, write_json
from hubmerge.localhub.names import is_account_name
from hubmerge.localhub.records import Repo
from hubmerge.localhub.refusals import bad_request, invalid_credentials

Role = Literal["read", "write", "fineGrained"]
FIRST_USER = "local"


@dataclass(frozen=True)
class Token:
    """An access token.

    Attributes:
        name: What logs show in its place.
        value: The secret itself.
        user: Whose token it is.
        role: A `fineGrained` token reads private repos of, and writes to, its `repos` only.
        repos: Repo ids.
    """

    name: str
    value: str
    user: str
    role: Role = "write"
    repos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Who sends a request: a user and the token used."""

    token: Token
    orgs: tuple[str, ...]

    @property
    def user(self) -> str:
        """The user's name."""
        return self.token.user

    @property
    def can_write(self) -> bool:
        """Whether the token may change anything at all."""
        return self.token.role != "read"

    def owns(self, namespace: str | None) -> bool:
        """Returns whether the namespace is the user's or of one of the user's organisations."""
        return namespace == self.user or namespace in self.orgs


class Accounts:
    """The users and tokens of one Hub, kept in `accounts.json` and `tokens.json` (mode 0600)."""

    def __init__(self, root: Path) -> None:
        self._lock = threading.Lock()
        self._users_file = root / "accounts.json"
        self._tokens_file = root / "tokens.json"
        if read_json(self._tokens_file) is None:
            self.create_user(FIRST_USER)

    def create_user(self, name: str, *, orgs: Iterable[str] = (), role: Role = "write") -> Token:
        """Adds a user, or memberships to one who is there, and returns a new token.

        Raises:
            Refusal: A name that no account may have.
        """
        orgs = tuple(orgs)
        for account in (name, *orgs):
            if not is_account_name(account):
                raise bad_request(f"Invalid account name: {account!r}")
        with self._lock:
            users = self._users()
            users[name] = sorted({*users.get(name, ()), *orgs})
            write_json(self._users_file, users)
        return self.create_token(name, role=role)

    def create_token(
        self, user: str, *, name: str | None = None, role: Role = "write", repos: Iterable[str] = ()
    ) -> Token:
        """Returns a new token of a user who exists, under this name or a free one like it.

        Raises:
            Refusal: There is no such user.
        """
        if user not in self._users():
            raise bad_request(f"No such user: {user!r}")
        with self._lock:
            tokens = self.tokens()
            free_name = _free_name(name or user, {token.name for token in tokens})
            token = Token(free_name, f"hf_{secrets.token_urlsafe(24)}", user, role, tuple(repos))
            write_json(self._tokens_file, [asdict(each) for each in (*tokens, token)], mode=0o600)
        return token

    def tokens(self) -> list[Token]:
        """Returns all tokens, oldest first."""
        stored = read_json(self._tokens_file, [])
        return [Token(**{**token, "repos": tuple(token["repos"])}) for token in stored]

    def first_token(self) -> Token:
        """Returns the write token that the first start created."""
        return next(token for token in self.tokens() if token.user == FIRST_USER)

    def identify(self, authorization: str | None) -> Identity | None:
        """Returns who sends this `Authorization` header, None without one; refuses an unknown token."""
        if authorization is None:
            return None
        value = authorization.removeprefix("Bearer ").strip().encode()
        for token in self.tokens():
            if hmac.compare_digest(token.value.encode(), value):
                return Identity(token, tuple(self._users()[token.user]))
        raise invalid_credentials()

    def is_account(self, name: str) -> bool:
        """Returns whether a user or an organisation has this name."""
        users = self._users()
        return name in users or any(name in orgs for orgs in users.values())

    def _users(self) -> dict[str, list[str]]:
        users: dict[str, list[str]] = read_json(self._users_file, {})
        return users


def may_see(identity: Identity | None, repo: Repo) -> bool:
    """Returns whether the repo exists for this caller: public, or private and theirs."""
    if not repo.private:
        return True
    return identity is not None and identity.owns(repo.namespace) and _in_scope(identity, repo)


def may_download(identity: Identity | None, repo: Repo) -> bool:
    """Returns whether this caller, who sees the repo, is past its gate."""
    if not repo.gated:
        return True
    return identity is not None and (identity.owns(repo.namespace) or identity.user in repo.accepted)


def may_write(identity: Identity | None, repo: Repo) -> bool:
    """Returns whether this caller may change the repo."""
    return identity is not None and identity.can_write and identity.owns(repo.namespace) and _in_scope(identity, repo)


def _free_name(wanted: str, taken: Container[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _in_scope(identity: Identity, repo: Repo) -> bool:
    return identity.token.role != "fineGrained" or repo.id in identity.token.repos
