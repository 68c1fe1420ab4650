"""What may go wrong in a run, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

REQUESTS_OF_A_RUN = 75
"""A push of four shards asks the Hub about as often."""

Details = dict[str, Any]
Draw = Callable[[random.Random], list[tuple[str, Details]]]

BODIES = "GET /cdn/"
QUESTIONS = "GET /api/"
ANYTHING = "."
UPLOADS = r"(POST|PUT) .*/(info/lfs|lfs|preupload|upload)"
COMMITS = "POST .*/commit/"


def _some(rng: random.Random, *, most: int = 12) -> Details:
    return {"skip": rng.randrange(most), "count": rng.choice([1, 2, 5])}


def _rate_limited(rng: random.Random) -> list[tuple[str, Details]]:
    headers = {"Retry-After": "1"} if rng.random() < 0.5 else {}
    return [(rng.choice([BODIES, QUESTIONS, ANYTHING, COMMITS]), {"status": 429, "headers": headers, **_some(rng)})]


def _server_error(rng: random.Random) -> list[tuple[str, Details]]:
    status = rng.choice([500, 502, 503, 504])
    return [(rng.choice([BODIES, QUESTIONS, ANYTHING, UPLOADS, COMMITS]), {"status": status, **_some(rng)})]


def _outage(rng: random.Random) -> list[tuple[str, Details]]:
    return [(ANYTHING, {"status": 503, "skip": rng.randrange(REQUESTS_OF_A_RUN)})]


def _dropped(rng: random.Random) -> list[tuple[str, Details]]:
    where = rng.choice([BODIES, QUESTIONS, ANYTHING, COMMITS])
    return [(where, {"drop_after_bytes": rng.choice([0, 1, 1000, 70_000]), **_some(rng)})]


def _stalled(rng: random.Random) -> list[tuple[str, Details]]:
    return [(rng.choice([BODIES, QUESTIONS]), {"stall_after_bytes": rng.choice([0, 5_000]), "count": 1, "skip": 3})]


def _ignored_range(rng: random.Random) -> list[tuple[str, Details]]:
    return [(BODIES, {"ignore_range": True, **_some(rng)})]


def _wrong_answers(rng: random.Random) -> list[tuple[str, Details]]:
    return [(QUESTIONS, {"wrong_bytes": rng.choice([1, 40]), **_some(rng, most=20)})]


def _wrong_header(rng: random.Random) -> list[tuple[str, Details]]:
    return [(BODIES, {"wrong_bytes": rng.choice([1, 8, 100]), "skip": rng.randrange(2), "count": 1})]


def _expired_addresses(rng: random.Random) -> list[tuple[str, Details]]:
    return [(BODIES, {"status": 403, "body": "Request has expired", **_some(rng)})]


def _expired_token(rng: random.Random) -> list[tuple[str, Details]]:
    return [("(GET|POST|PUT|DELETE) /api/", {"status": 401, "skip": rng.randrange(40)})]


def _conflict(rng: random.Random) -> list[tuple[str, Details]]:
    return [(COMMITS, {"status": 412, "skip": rng.randrange(5), "count": 1})]


def _lost_answer(rng: random.Random) -> list[tuple[str, Details]]:
    return [(COMMITS, {"status": 504, "apply_first": True, "skip": rng.randrange(5), "count": rng.choice([1, 2])})]


def _refused(rng: random.Random) -> list[tuple[str, Details]]:
    where = rng.choice([UPLOADS, COMMITS, QUESTIONS])
    return [(where, {"status": rng.choice([400, 403, 404, 413]), **_some(rng)})]


FAULTS: dict[str, Draw] = {
    "429": _rate_limited,
    "5xx": _server_error,
    "outage": _outage,
    "dropped body": _dropped,
    "stalled body": _stalled,
    "ignored Range": _ignored_range,
    "wrong answer": _wrong_answers,
    "wrong header": _wrong_header,
    "expired address": _expired_addresses,
    "expired token": _expired_token,
    "412": _conflict,
    "lost answer": _lost_answer,
    "refusal": _refused,
}

EVENTS = ("kill -9", "Ctrl-C", "target moved", "target deleted", "full disk", "two at once")
DISK_EVENTS = ("full disk", "file size limit")


@dataclass(frozen=True)
class Case:
    """One run and its misfortunes.

    Attributes:
        kinds: Their names.
        faults: What the Hub does wrong: patterns and the fields of a Fault.
        event: What else happens, if anything, `after` so many requests; to the disk, while a shard is written.
        to_folder: Merge into a folder instead of a repo.
        uses_xet: How large files go up.
        reserves: Whether the file system can set space aside for a file; where it cannot, as on NFS, a full disk is
            noticed in the middle of a shard.
        diagnostics: Whether the weights are measured and drawn.
    """

    seed: int
    kinds: tuple[str, ...]
    faults: list[tuple[str, Details]] = field(default_factory=list)
    event: str | None = None
    after: int = 0
    to_folder: bool = False
    uses_xet: bool = False
    reserves: bool = True
    diagnostics: bool = True


def draw(seed: int) -> Case:
    """Returns the case of a seed: always the same."""
    rng = random.Random(seed)
    event = rng.choice(EVENTS) if rng.random() < 0.5 else None
    if event == "full disk" and rng.random() < 0.3:
        event = "file size limit"
    count = rng.choice([0, 1, 2]) if event else rng.choice([1, 2, 3])
    kinds = rng.sample(sorted(FAULTS), count)
    to_folder = event in (None, "kill -9", "Ctrl-C", *DISK_EVENTS) and rng.random() < 0.2
    return Case(
        seed,
        (*kinds, *([event] if event else [])),
        [fault for kind in kinds for fault in FAULTS[kind](rng)],
        event,
        after=rng.randrange(1, 25 if to_folder else REQUESTS_OF_A_RUN),
        to_folder=to_folder,
        uses_xet=not kinds and rng.random() < 0.5,
        reserves=event not in DISK_EVENTS or rng.random() < 0.5,
        diagnostics=rng.random() < 0.25,
    )
