"""Starting, stopping, and what a restart finds."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session

from hubmerge.errors import HubServerError
from hubmerge.localhub import LocalHub

WEIGHTS = bytes(range(256)) * 100


def client(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        api = client(hub)
        api.create_repo("local/kept", private=True)
        operations = [CommitOperationAdd("w.safetensors", WEIGHTS), CommitOperationAdd("a", b"1")]
        head = api.create_commit("local/kept", operations, commit_message="all").oid
        api.create_tag("local/kept", tag="v1")
        api.create_discussion("local/kept", "Remember me")
        token = hub.token
    with LocalHub(tmp_path) as hub:
        api = client(hub)
        assert hub.token == token
        assert (api.model_info("local/kept").sha, api.model_info("local/kept").private) == (head, True)
        assert [ref.name for ref in api.list_repo_refs("local/kept").tags] == ["v1"]
        assert [each.title for each in api.get_repo_discussions("local/kept")] == ["Remember me"]
        url = f"{hub.endpoint}/local/kept/resolve/v1/w.safetensors"
        assert get_session().get(url, headers={"Authorization": f"Bearer {token}"}).content == WEIGHTS


def test_files_that_came_by_xet_stay_readable_without_it(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        client(hub).create_repo("local/x")
        client(hub).upload_file(path_or_fileobj=WEIGHTS, path_in_repo="w.bin", repo_id="local/x")
    with LocalHub(tmp_path, transport="lfs") as hub:
        (listed,) = client(hub).get_paths_info("local/x", ["w.bin"])
        assert listed.xet_hash is None
        assert get_session().get(f"{hub.endpoint}/local/x/resolve/main/w.bin").content == WEIGHTS


def test_a_folder_is_served_once(tmp_path: Path) -> None:
    with LocalHub(tmp_path), pytest.raises(HubServerError) as caught, LocalHub(tmp_path):
        pass
    assert str(caught.value) == f"another local Hub is serving {tmp_path}"
    assert caught.value.hint == "stop it, or serve another folder"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HubServerError) as caught, LocalHub(tmp_path, port=port):
            pass
    assert str(caught.value) == f"the local Hub cannot listen on 127.0.0.1:{port}: Address already in use"
    with LocalHub(tmp_path) as hub:
        assert hub.endpoint != f"http://127.0.0.1:{port}"


def test_it_listens_on_loopback_only(hub: LocalHub) -> None:
    assert hub.endpoint.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "lz4"])
def test_missing_packages_are_named_when_a_hub_is_opened(package: str, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from hubmerge.errors import HubServerError
from hubmerge.localhub import LocalHub
try:
    LocalHub({str(tmp_path)!r})
except HubServerError as error:
    sys.exit(f"{{error}} | {{error.hint}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "the local Hub needs its extra packages | pip install 'hubmerge[hub]'\n"


def test_a_stalled_answer_does_not_keep_the_hub_from_stopping(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        hub.faults.add("GET /api/models", stall_after_bytes=0)
        with pytest.raises(Exception, match="timed out"):
            get_session().get(f"{hub.endpoint}/api/models", timeout=0.2)
