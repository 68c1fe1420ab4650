"""The Hub's licence ids, sorted by what they ask of a merge, and the spellings that cards use for them."""

from __future__ import annotations

import re
from enum import IntEnum


class Family(IntEnum):
    """Licences that ask the same kind of thing; of families that fit together, the highest decides."""

    PERMISSIVE = 1
    ATTRIBUTION = 2
    NONCOMMERCIAL = 3
    SHARE_ALIKE = 4
    NONCOMMERCIAL_SHARE_ALIKE = 5
    COPYLEFT = 6
    USE_RESTRICTED = 7
    OWN_TERMS = 8
    NO_DERIVATIVES = 9
    UNKNOWN = 10


IDS: dict[Family, tuple[str, ...]] = {
    # From the most conditions to the fewest, so that the first one present covers the others.
    Family.PERMISSIVE: (
        *("apache-2.0", "ecl-2.0", "afl-3.0", "artistic-2.0", "openmdw-1.0", "bsd-3-clause-clear", "bsd-3-clause"),
        *("bsd", "ncsa", "bsd-2-clause", "postgresql", "mit", "isc", "bsl-1.0", "zlib"),
        *("unlicense", "cc0-1.0", "pddl", "wtfpl"),
    ),
    Family.ATTRIBUTION: ("cc-by-4.0", "cc-by-3.0", "cc-by-2.5", "cc-by-2.0"),
    Family.NONCOMMERCIAL: ("cc-by-nc-4.0", "cc-by-nc-3.0", "cc-by-nc-2.0"),
    Family.SHARE_ALIKE: ("cc-by-sa-4.0", "cc-by-sa-3.0"),
    Family.NONCOMMERCIAL_SHARE_ALIKE: ("cc-by-nc-sa-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-2.0"),
    # Each may be conveyed as a part of a work under the ones before it; "gpl" and "lgpl" leave the version open.
    Family.COPYLEFT: ("agpl-3.0", "gpl-3.0", "gpl", "lgpl-3.0", "lgpl"),
    Family.USE_RESTRICTED: (
        *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma", "grok2-community"),
        *("openrail", "openrail++", "bigscience-openrail-m", "creativeml-openrail-m", "bigcode-openrail-m"),
        *("bigscience-bloom-rail-1.0", "deepfloyd-if-license", "h-research", "intel-research"),
        *("fair-noncommercial-research-license", "apple-ascl", "apple-amlr"),
    ),
    Family.OWN_TERMS: (
        *("gpl-2.0", "lgpl-2.1", "lgpl-lr", "mpl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "osl-3.0"),
        *("ms-pl", "gfdl", "lppl-1.3c", "ofl-1.1", "c-uda", "cdla-sharing-1.0", "cdla-permissive-1.0"),
        *("cdla-permissive-2.0", "etalab-2.0", "odc-by", "odbl"),
    ),
    Family.NO_DERIVATIVES: ("cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-nd-3.0"),
}
"""The ids of https://huggingface.co/docs/hub/repositories-licenses; `cc`, `unknown` and `other` name no licence."""

_FAMILY_OF = {licence: family for family, licences in IDS.items() for licence in licences}
_NOISE = re.compile(r"licen[cs]e|version|community|agreement|terms of use|^the\b|^meta\b")


_LINKS = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "gpl-3.0": "https://www.gnu.org/licenses/gpl-3.0.html",
    "agpl-3.0": "https://www.gnu.org/licenses/agpl-3.0.html",
    "lgpl-3.0": "https://www.gnu.org/licenses/lgpl-3.0.html",
    "llama2": "https://ai.meta.com/llama/license/",
    "llama3": "https://www.llama.com/llama3/license/",
    "llama3.1": "https://www.llama.com/llama3_1/license/",
    "llama3.2": "https://www.llama.com/llama3_2/license/",
    "llama3.3": "https://www.llama.com/llama3_3/license/",
    "llama4": "https://www.llama.com/llama4/license/",
    "gemma": "https://ai.google.dev/gemma/terms",
}
_CREATIVE_COMMONS = re.compile(r"cc-(by(?:-(?:nc|nd|sa))*)-(\d\.\d)")


def link_of(licence: str) -> str | None:
    """Returns where the text of a licence is published; None where that is not known here."""
    if match := _CREATIVE_COMMONS.fullmatch(licence):
        return f"https://creativecommons.org/licenses/{match[1]}/{match[2]}/"
    return _LINKS.get(licence)


def normalise(text: str) -> str | None:
    """Returns the Hub's id for a licence in any usual spelling ("Apache 2.0", "llama-3.1", "GPLv3"), or None."""
    return _BY_KEY.get(_key(text))


def family_of(licence: str) -> Family:
    """Returns the family of a Hub id; UNKNOWN for any other text."""
    return _FAMILY_OF.get(licence, Family.UNKNOWN)


def _key(text: str) -> str:
    """Returns what spellings of one licence have in common: words and versions without ornament or a final ".0"."""
    words = _NOISE.sub("", text.lower().strip())
    dotted = re.sub(r"(?<=\d)[-_](?=\d)", ".", words)
    bare = re.sub(r"[^a-z0-9.+]", "", dotted)
    return re.sub(r"v(?=\d)", "", bare).removesuffix(".0")


_BY_KEY = {
    **{_key(licence): licence for licence in _FAMILY_OF},
    **{"cc0": "cc0-1.0", "bsd3": "bsd-3-clause", "bsd2": "bsd-2-clause", "boostsoftware": "bsl-1.0"},
}
