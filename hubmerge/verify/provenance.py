"""A verified merge as an in-toto statement: which files it is, and what they were made from.

Formats: https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1. The statement is not signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from hubmerge.errors import HubmergeError
from hubmerge.merge.plan import Parent
from hubmerge.verify.layout import expected_files
from hubmerge.verify.published import Published, sha256_of
from hubmerge.verify.rebuild import Rebuilt
from hubmerge.verify.report import Provenance, Report, Verdict, report_as_json
from hubmerge.version import __version__

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://pypi.org/project/hubmerge/merge/v1"
BUILDER = "https://pypi.org/project/hubmerge"


def provenance(published: Published, rebuilt: Rebuilt) -> Provenance:
    """Returns the provenance of a merge whose parents are open."""
    if published.lock is None:
        entries = published.files.entries()
        outputs = {path: sha256_of(published.files, entries[path]) for path in published.weight_files}
    else:
        outputs = {output.path: output.sha256 for output in published.lock.outputs}
        small = sorted(expected_files(rebuilt).items())
        outputs |= {path: hashlib.sha256(content).hexdigest() for path, content in small}
    materials = tuple(entry for parent in rebuilt.plan.parents for entry in _materials(parent))
    return Provenance(rebuilt.plan.recipe.text, rebuilt.plan.recipe.seed, outputs, materials)


def statement(report: Report) -> dict[str, Any]:
    """Returns the statement about a merge that was verified.

    Raises:
        HubmergeError: It was not proven, or the verification was not asked for its provenance.
    """
    facts = report.provenance
    if report.verdict is not Verdict.PROVEN or facts is None:
        raise HubmergeError("nothing is attested of a merge that is not proven, with its provenance")
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": path, "digest": {"sha256": sha256}} for path, sha256 in facts.outputs.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": facts.recipe, "seed": facts.seed, "target": report.label},
                "resolvedDependencies": list(facts.materials),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"hubmerge": __version__}},
                "byproducts": [_result(report)],
            },
        },
    }


def _materials(parent: Parent) -> Iterator[dict[str, Any]]:
    """Yields a parent and each of its files of weights; a folder's have no hash that holds elsewhere."""
    uri = str(parent.ref) if parent.sha is None else f"hf://{parent.ref.path}@{parent.sha}"
    yield {"uri": uri, **({} if parent.sha is None else {"digest": {"gitCommit": parent.sha}})}
    for path, _, version in parent.files:
        if isinstance(version, str):
            kind = "sha256" if len(version) == 64 else "gitBlob"
            yield {"uri": f"{uri}/{path}", "digest": {kind: version}}


def _result(report: Report) -> dict[str, Any]:
    return {"name": "verification", "annotations": report_as_json(report)}
