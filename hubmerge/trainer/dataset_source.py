"""A data set by name → its commit, licence and files of one split; then some of its rows, or all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from hubmerge.errors import DataError, HubmergeError
from hubmerge.trainer.settings import DatasetSource
from hubmerge.trainer.settings_file import is_file
from hubmerge.version import __version__
from hubmerge.weights.hub_client import HASTY, check_token, retried
from hubmerge.weights.hub_errors import HUB_FAILURES, explain
from hubmerge.weights.reference import is_hub_id

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULT_SPLITS = ("train", "train_prefs")
_READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True)
class OpenedDataset:
    """One split of a data set at one commit, nothing of it downloaded.

    Attributes:
        sha: The commit; of a file the SHA-256 of its content.
        licence: As its card states it; None where it does not.
        gated: Readers have to accept terms first.
        split: The one that is read.
        reader: Name of the reader in `datasets` for `files`.
        files: Those of the split, as addresses that `datasets` opens.
    """

    source: DatasetSource
    sha: str
    licence: str | None
    gated: bool
    split: str
    reader: str
    files: tuple[str, ...]

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine."""
        return is_file(self.source.path)


def open_dataset(source: DatasetSource, *, token: str | bool | None = None) -> OpenedDataset:
    """Returns a data set pinned to its commit; only names of files are asked for.

    Raises:
        DataError: There is no such data set, split or configuration, or it may not be read.
        TransferError: The Hub does not answer.
    """
    if is_file(source.path):
        return _open_file(source)
    if not is_hub_id(source.path):
        raise DataError(
            f"`{source.path}` is neither a data set's id (`org/name`) nor a .jsonl, .json, .parquet or .csv file"
        )
    return _open_repo(source, token=token)


def first_rows(opened: OpenedDataset, count: int, *, token: str | bool | None = None) -> list[dict[str, Any]]:
    """Returns the first rows of the split, having read only the beginning of its files.

    Raises:
        DataError: The files cannot be read.
    """
    rows: list[dict[str, Any]] = _load(opened, lambda rows: list(islice(rows, count)), streaming=True, token=token)
    return rows


def all_rows(opened: OpenedDataset, *, token: str | bool | None = None) -> Dataset:
    """Returns the split, having downloaded its files and no other's.

    Raises:
        DataError: The files cannot be read.
    """
    rows: Dataset = _load(opened, lambda rows: rows, streaming=False, token=token)
    return rows


def _open_file(source: DatasetSource) -> OpenedDataset:
    path = Path(source.path).expanduser()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read the data set {source.path}: {error.strerror}") from None
    reader = _READERS[path.suffix.lower()]
    return OpenedDataset(source, digest, None, gated=False, split="train", reader=reader, files=(str(path.resolve()),))


def _open_repo(source: DatasetSource, *, token: str | bool | None) -> OpenedDataset:
    check_token(token, DataError)
    try:
        api = HfApi(token=token, library_name="hubmerge", library_version=__version__)
        info = retried(
            lambda: api.dataset_info(source.path, revision=source.revision, timeout=HASTY.timeout_seconds), policy=HASTY
        )
    except HUB_FAILURES as error:
        raise _refusal(error, source, token=token) from error
    assert info.sha is not None, "the Hub tells the commit of a revision"
    reader, splits = _splits(source, info.sha, token=token)
    split = _split(source, splits)
    licence = info.card_data.get("license") if info.card_data is not None else None
    stated = ", ".join(map(str, licence)) if isinstance(licence, list) else licence
    return OpenedDataset(source, info.sha, stated, bool(info.gated), split, reader, tuple(splits[split]))


def _splits(source: DatasetSource, sha: str, *, token: str | bool | None) -> tuple[str, Mapping[str, list[str]]]:
    """Returns the reader of a repo's files, and those files by split."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    try:
        builder = load_dataset_builder(source.path, source.config, revision=sha, token=token)
    except DatasetNotFoundError:  # it is there, as the Hub has told its commit
        raise _gated(source) from None
    except ValueError as error:
        raise _no_config(source, sha, error, token=token) from None
    except Exception as error:  # `datasets` has no common ancestor of what it raises for a repo
        raise DataError(
            f"{source.path} cannot be read as a data set: {_first_line(error)}",
            hint="A data set made by a script has its rows as parquet under the revision refs/convert/parquet.",
        ) from error
    files = builder.config.data_files or {}
    return type(builder).__module__.split(".")[-1], {str(split): list(names) for split, names in files.items()}


def _no_config(source: DatasetSource, sha: str, error: ValueError, *, token: str | bool | None) -> DataError:
    from datasets import get_dataset_config_names

    configs = get_dataset_config_names(source.path, revision=sha, token=token)
    if source.config is None and len(configs) > 1:
        message = f"{source.path} has several configurations: {', '.join(configs)}"
    elif source.config is not None and source.config not in configs:
        message = f"{source.path} has no configuration {source.config}; it has {', '.join(configs)}"
    else:
        message = f"{source.path}: {_first_line(error)}"
    return DataError(message, hint="Name one with `config:`.")


def _split(source: DatasetSource, splits: Mapping[str, list[str]]) -> str:
    wanted = DEFAULT_SPLITS if source.split is None else (source.split,)
    found = next((split for split in wanted if split in splits), None)
    if found is None:
        has = ", ".join(splits) or "none"
        raise DataError(f"{source.path} has no split {' or '.join(wanted)}", hint=f"Name one with `split:`: {has}.")
    return found


def _load(opened: OpenedDataset, take: Callable[[Any], Any], *, streaming: bool, token: str | bool | None) -> Any:
    from datasets import load_dataset

    try:
        rows = load_dataset(
            opened.reader,
            data_files={opened.split: list(opened.files)},
            split=opened.split,
            streaming=streaming,
            token=None if opened.is_local else token,
        )
        return take(rows)
    except StopIteration:  # of `datasets`, for a file without content
        raise DataError(f"{opened.source.path} has no rows in the split {opened.split}") from None
    except Exception as error:  # a reader's errors are those of pyarrow, pandas, fsspec and `datasets`
        cause = error.__cause__ or error
        raise DataError(f"{opened.source.path} cannot be read: {_first_line(cause)}") from error


def _refusal(error: Exception, source: DatasetSource, *, token: str | bool | None) -> HubmergeError:
    page = f"{constants.ENDPOINT}/datasets/{source.path}"
    match error:
        case GatedRepoError():
            return _gated(source)
        case RepositoryNotFoundError():
            return DataError(
                f"there is no data set {source.path} on the Hub, or it is private and the token may not read it",
                hint="Check the name; a file of this machine ends in .jsonl, .json, .parquet or .csv.",
            )
        case RevisionNotFoundError():
            return DataError(
                f"the data set {source.path} has no revision {source.revision!r}",
                hint=f"Its revisions: {page}/tree/main",
            )
    return explain(error, source.path, source.revision, token=token)


def _gated(source: DatasetSource) -> DataError:
    page = f"{constants.ENDPOINT}/datasets/{source.path}"
    return DataError(f"the data set {source.path} is gated", hint=f"Accept its terms at {page}.")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
