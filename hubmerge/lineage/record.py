"""An ancestry and its audit as plain data: lineage.json and the like, the same for the same ancestry."""

from __future__ import annotations

import json
from typing import Any

from hubmerge.lineage.audit import Audit
from hubmerge.lineage.graph import Edge, Lineage, Node

LINEAGE_FILE = "lineage.json"
FORMAT = 1
"""Raised when a reader of an earlier file would misread a newer one."""


def lineage_record(lineage: Lineage) -> dict[str, Any]:
    """Returns the graph as JSON types; the models breadth first from the root, recipes left out."""
    return {
        "lineage_version": FORMAT,
        "root": lineage.root,
        "models": [_model(node) for node in lineage.nodes.values()],
        "made_from": [_edge(edge) for edge in lineage.edges],
        "shared": [node.id for node in lineage.diamonds],
    }


def render_lineage(lineage: Lineage) -> str:
    """Returns the text of lineage.json."""
    return f"{json.dumps(lineage_record(lineage), indent=2, ensure_ascii=False)}\n"


def render_audit(lineage: Lineage, audit: Audit) -> str:
    """Returns what is wrong in an ancestry as the text of a JSON file."""
    record = {
        "audit_version": FORMAT,
        "root": lineage.root,
        "needs_consent": audit.needs_consent,
        "license": audit.licence.license if audit.licence.is_settled else None,
        "license_name": audit.licence.name if audit.licence.is_settled else None,
        "license_outcome": audit.licence.outcome.name.lower(),
        "license_reasons": list(audit.licence.reasons),
        "findings": [
            {
                "kind": finding.fault.value,
                "severity": finding.severity.value,
                "model": finding.model,
                "path": list(lineage.path_to(finding.model)),
                "sentence": finding.sentence,
            }
            for finding in audit.findings
        ],
    }
    return f"{json.dumps(record, indent=2, ensure_ascii=False)}\n"


def _model(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "repo_id": node.repo_id,
        "sha": node.sha,
        "state": node.state.value,
        "relation": node.relation.value if node.relation else None,
        "method": node.method,
        "license": node.licence.license,
        "license_name": node.licence.name,
        "datasets": list(node.datasets),
        "contamination": list(node.contamination),
        "problems": list(node.problems),
    }


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "child": edge.child,
        "parent": edge.parent,
        "base": edge.is_base,
        "evidence": [evidence.value for evidence in edge.evidence],
    }
