"""How one local Hub behaves, apart from what is stored in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Transport = Literal["xet", "lfs"]

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class HubOptions:
    """The settings of a local Hub.

    Attributes:
        transport: `xet` offers Xet beside plain HTTP, `lfs` is a Hub that never heard of Xet.
        large_file_bytes: Files from this size on are large, whatever their name (the Hub: 10 MB).
        part_bytes: LFS uploads above this size go in parts of this size.
        page_entries: Entries of a tree listing, or repos of a list, per answer (the Hub: 1000).
        signed_url_seconds: How long a download or upload address stays good.
        bytes_per_second: What all downloads of content share, and as much again all uploads; None for no limit.
        requests_per_window: API requests, and the same number of file requests, that one caller may send in
            `window_seconds` before the answer is 429; None for no limit (the Hub: 1,000 and 5,000 per 300 s).
        window_seconds: See `requests_per_window`.
    """

    transport: Transport = "xet"
    large_file_bytes: int = 10 * MEBIBYTE
    part_bytes: int = 512 * MEBIBYTE
    page_entries: int = 1000
    signed_url_seconds: int = 3600
    bytes_per_second: int | None = None
    requests_per_window: int | None = None
    window_seconds: int = 300
