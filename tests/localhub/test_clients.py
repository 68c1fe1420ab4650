from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from hubmerge.localhub import LocalHub


def test_a_file_goes_up_and_comes_back(hub: LocalHub, tmp_path: Path) -> None:
    api = HfApi(token=hub.create_user("clients"))
    api.create_repo("clients/first")
    weights = bytes(range(256)) * 5000
    api.upload_file(path_or_fileobj=weights, path_in_repo="model.safetensors", repo_id="clients/first")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="clients/first")
    assert Path(hf_hub_download("clients/first", "model.safetensors")).read_bytes() == weights
    folder = Path(snapshot_download("clients/first"))
    assert sorted(p.name for p in folder.iterdir()) == [".gitattributes", "config.json", "model.safetensors"]
