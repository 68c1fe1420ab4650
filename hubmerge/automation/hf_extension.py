"""`hf merge`: this program as an extension of the `hf` command line.

`hf` finds an extension by a manifest in its folder, and runs the program that is named there:
https://huggingface.co/docs/huggingface_hub/guides/cli#hf-extensions.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from hubmerge.errors import AutomationError
from hubmerge.version import REPOSITORY

COMMAND = "merge"
PROGRAM = f"hf-{COMMAND}"
MANIFEST_FILE = "manifest.json"
DESCRIPTION = "Merge language models from Hub to Hub"


def install_extension(*, force: bool = False) -> Path:
    """Returns the manifest that was written, which makes `hf merge` run the installed `hf-merge`.

    Args:
        force: Replace one that `hf extensions install` has put there.

    Raises:
        AutomationError: The program is not installed, or another one has the name.
    """
    program = _program()
    folder = Path("~/.local/share/hf/extensions").expanduser() / PROGRAM
    if _is_foreign(folder) and not force:
        raise AutomationError(
            f"`hf {COMMAND}` is installed already, in {folder}", hint="Replace it with --force, or keep it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST_FILE
    manifest.write_text(json.dumps(_manifest(program), indent=2, sort_keys=True))
    return manifest


def _program() -> Path:
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise AutomationError(f"the program {PROGRAM} is not installed", hint="pip install hubmerge")
    return Path(found).absolute()


def _is_foreign(folder: Path) -> bool:
    """Returns whether something is there that this module has not written."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return not isinstance(manifest, dict) or manifest.get("commit_sha") is not None


def _manifest(program: Path) -> dict[str, str | None]:
    owner, _, repo = REPOSITORY.partition("/")
    return {
        "owner": owner,
        "repo": repo,
        "repo_id": REPOSITORY,
        "short_name": COMMAND,
        "executable_path": str(program),
        "type": "python",
        "installed_at": datetime.now(UTC).isoformat(),
        "description": DESCRIPTION,
        "commit_sha": None,  # pip knows the version
    }
