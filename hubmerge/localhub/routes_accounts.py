"""Who am I, may I, and is this card well formed."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import JSONResponse, Response

from hubmerge.localhub import cards
from hubmerge.localhub.accounts import Identity
from hubmerge.localhub.call import Call
from hubmerge.localhub.records import Repo
from hubmerge.localhub.refusals import Refusal, bad_request
from hubmerge.localhub.router import Endpoint


def _whoami(call: Call) -> Response:
    identity = call.user()
    return JSONResponse(
        {
            "type": "user",
            "id": identity.user,
            "name": identity.user,
            "fullname": identity.user,
            "email": f"{identity.user}@localhub",
            "emailVerified": True,
            "isPro": False,
            "orgs": [_org(name) for name in identity.orgs],
            "auth": {"type": "access_token", "accessToken": _access_token(identity)},
        }
    )


def _org(name: str) -> dict[str, object]:
    return {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": "write"}


def _access_token(identity: Identity) -> dict[str, object]:
    token: dict[str, object] = {"displayName": identity.token.name, "role": identity.token.role}
    if identity.token.role == "fineGrained":
        repos = [
            {"entity": {"type": "model", "name": each}, "permissions": ["repo.write"]} for each in identity.token.repos
        ]
        token["fineGrained"] = {"scoped": repos, "global": []}
    return token


def _auth_check(call: Call) -> Response:
    call.downloadable(call.repo())
    return JSONResponse({})


def _write_check(call: Call) -> Response:
    call.writable(call.repo())
    return JSONResponse({})


def _validate_yaml(call: Call) -> Response:
    verdict = cards.validate(str(call.json().get("content", "")))
    answer = {
        "errors": [{"message": each} for each in verdict.errors],
        "warnings": [{"message": each} for each in verdict.warnings],
    }
    return JSONResponse(answer, 400 if verdict.errors else 200)


def _ask_access(call: Call) -> Response:
    """Asks to be let into a gated repo; one with automatic approval opens at once."""
    user = call.user().user
    with call.state.lock:
        repo = call.repo()
        if repo.gated == "auto":
            _let_in(call, repo, user)
        elif repo.gated == "manual":
            call.state.repos.save(replace(repo, pending=tuple(dict.fromkeys((*repo.pending, user)))))
        else:
            raise bad_request(f"{repo.id} is not gated")
    return JSONResponse({})


def _list_access(call: Call) -> Response:
    repo = call.writable(call.repo())
    users = {"accepted": repo.accepted, "pending": repo.pending}.get(call.params["status"], ())
    return JSONResponse([_access_request(call, name) for name in users])


def _access_request(call: Call, name: str) -> dict[str, object]:
    user = {"user": name, "fullname": name, "email": f"{name}@localhub"}
    created_at = call.repo().created_at
    return {"requestId": name, "user": user, "status": call.params["status"], "timestamp": created_at}


def _grant_access(call: Call) -> Response:
    with call.state.lock:
        repo = call.writable(call.repo())
        user = str(call.json().get("user"))
        if not repo.gated:
            raise bad_request(f"{repo.id} is not gated")
        if not call.state.accounts.is_account(user):
            raise Refusal(404, f"No such user: {user}")
        _let_in(call, repo, user)
    return JSONResponse({})


def _handle_access(call: Call) -> Response:
    with call.state.lock:
        repo = call.writable(call.repo())
        body = call.json()
        user = str(body.get("user") or body.get("requestId"))
        if user not in (*repo.pending, *repo.accepted):
            raise Refusal(404, f"{user} has not asked for access")
        status = body.get("status")
        _set_access(call, repo, user, accepted=status == "accepted", pending=status == "pending")
    return JSONResponse({})


def _let_in(call: Call, repo: Repo, user: str) -> None:
    _set_access(call, repo, user, accepted=True, pending=False)


def _set_access(call: Call, repo: Repo, user: str, *, accepted: bool, pending: bool) -> None:
    others_in = tuple(each for each in repo.accepted if each != user)
    others_waiting = tuple(each for each in repo.pending if each != user)
    call.state.repos.save(
        replace(
            repo,
            accepted=(*others_in, user) if accepted else others_in,
            pending=(*others_waiting, user) if pending else others_waiting,
        )
    )


ENDPOINTS = (
    Endpoint("GET", "/api/whoami-v2", _whoami),
    Endpoint("POST", "/api/validate-yaml", _validate_yaml),
    Endpoint("GET", "/api/{kind}/{repo}/auth-check", _auth_check),
    Endpoint("GET", "/api/{kind}/{repo}/auth-check/write", _write_check),
    Endpoint("POST", "/{prefix}{repo}/ask-access", _ask_access),
    Endpoint("POST", "/api/{kind}/{repo}/user-access-request/grant", _grant_access),
    Endpoint("POST", "/api/{kind}/{repo}/user-access-request/handle", _handle_access),
    Endpoint("GET", "/api/{kind}/{repo}/user-access-request/{status}", _list_access),
)
