"""The way in: a local Hub in a thread of this process.

Nothing here imports the server's extra packages before a Hub is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from hubmerge.errors import HubServerError
from hubmerge.localhub.accounts import Role
from hubmerge.localhub.options import HubOptions, Transport

if TYPE_CHECKING:
    from hubmerge.localhub.faults import Faults
    from hubmerge.localhub.request_log import RequestLog

DEFAULT_OPTIONS = HubOptions()


class LocalHub:
    """A Hub that runs in a thread while the `with` block lasts; what it stores stays in its folder.

    Args:
        root: Its folder; a new one gets the user `local`, whose write token is in `tokens.json` there.
        host: Address to listen on. Loopback by default: it is not hardened for the open internet.
        port: 0 for any free one.
        transport: `xet` or `lfs`, whatever `options` say.
        options: Everything else that can be set.

    Raises:
        HubServerError: The extra packages are missing; on entry, the port is taken or the folder is being served.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        transport: Transport = "xet",
        options: HubOptions = DEFAULT_OPTIONS,
    ) -> None:
        options = replace(options, transport=transport)
        self._server = _import_running().HubServer(Path(root), host=host, port=port, options=options)

    @property
    def endpoint(self) -> str:
        """The address for `HF_ENDPOINT`, known once the Hub runs: http://127.0.0.1:8000."""
        endpoint: str = self._server.endpoint
        return endpoint

    @property
    def token(self) -> str:
        """A write token of the user `local`."""
        value: str = self._server.state.accounts.first_token().value
        return value

    @property
    def faults(self) -> Faults:
        """What shall go wrong; see `Faults.add`."""
        faults: Faults = self._server.faults
        return faults

    @property
    def requests(self) -> RequestLog:
        """What was asked so far: a sequence of `Request` records that `clear()` empties."""
        log: RequestLog = self._server.log
        return log

    def create_user(self, name: str, *, orgs: Iterable[str] = (), role: Role = "write") -> str:
        """Adds a user and organisations, if they are not there, and returns a new token of the user."""
        value: str = self._server.state.accounts.create_user(name, orgs=orgs, role=role).value
        return value

    def create_token(
        self, user: str, *, name: str | None = None, role: Role = "write", repos: Iterable[str] = ()
    ) -> str:
        """Returns another token of a user; a `fineGrained` one is for its `repos` only."""
        value: str = self._server.state.accounts.create_token(user, name=name, role=role, repos=repos).value
        return value

    def finish_job(self, namespace: str, job_id: str, *, stage: str, log: Sequence[str] = ()) -> None:
        """Ends a job, which the Hub itself only records: `COMPLETED` or `ERROR`, with the lines that it wrote."""
        found = self._server.state.automation.finish_job(namespace, job_id, stage=stage, log=log)
        assert found, f"{namespace} has no job {job_id}"

    def __enter__(self) -> LocalHub:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()


def _import_running() -> ModuleType:
    try:
        from hubmerge.localhub import running
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hubmerge"):
            raise
        hint = "pip install 'hubmerge[hub]'"
        raise HubServerError("the local Hub needs its extra packages", hint=hint) from error
    return running
