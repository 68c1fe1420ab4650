"""Who may read the parents and write the target; what is refused, is refused before any weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import HubmergeError, PublishError, SourceError
from hubmerge.localhub import LocalHub
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_and_push
from tests.end_to_end.merges import (
    OPTIONS,
    SHARD_BYTES,
    Parents,
    new_repo,
    shard_hashes,
    staged_shards,
    weight_bytes_read,
    write_parents,
)

WRITE_HINT = "Use a token with write access to it (--target-token, or HF_TOKEN), or choose a repo of your own."
NO_RIGHTS = "You don't have the rights to"


@pytest.fixture(scope="module")
def stranger(hub: LocalHub) -> str:
    return hub.create_user("uninvited")


@pytest.fixture(scope="module")
def closed_parents(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Parents:
    """Private models of somebody else."""
    token = hub.create_user("owner")
    return write_parents(tmp_path_factory.mktemp("closed"), token, owner="owner", private=True)


def refusal(hub: LocalHub, parents: Parents, repo: str, token: str | None, **details: object) -> HubmergeError:
    """Returns why a push is refused, after a look at what was read by then."""
    hub.requests.clear()
    with pytest.raises(HubmergeError) as caught:
        merge_and_push(parents.recipe(), repo, target_token=token, options=OPTIONS, **details)
    assert weight_bytes_read(hub) <= parents.header_bytes
    return caught.value


def test_a_token_that_only_reads_cannot_create_a_repo(hub: LocalHub, api: HfApi, parents: Parents) -> None:
    repo = new_repo()
    error = refusal(hub, parents, repo, hub.create_token("local", role="read"))
    assert isinstance(error, PublishError)
    assert str(error) == f"the token may not write to {repo}; the Hub says: This token has no write permission"
    assert error.hint == WRITE_HINT
    assert not api.repo_exists(repo)


@pytest.mark.parametrize("create_pr", [True, False])
def test_a_token_that_only_reads_cannot_change_a_repo(
    hub: LocalHub, api: HfApi, parents: Parents, create_pr: bool
) -> None:
    repo = new_repo()
    api.create_repo(repo)
    error = refusal(hub, parents, repo, hub.create_token("local", role="read"), create_pr=create_pr)
    assert str(error) == f"the token may not write to {repo}; the Hub says: This token has no write permission"


def test_a_token_for_another_repo_is_refused(hub: LocalHub, api: HfApi, parents: Parents) -> None:
    repo = new_repo()
    api.create_repo(repo)
    error = refusal(hub, parents, repo, hub.create_token("local", role="fineGrained", repos=["local/another"]))
    assert str(error) == f"the token may not write to {repo}; the Hub says: {NO_RIGHTS} write to {repo}"


def test_a_private_repo_that_the_token_does_not_cover_is_refused(hub: LocalHub, api: HfApi, parents: Parents) -> None:
    repo = new_repo()
    api.create_repo(repo, private=True)
    error = refusal(hub, parents, repo, hub.create_token("local", role="fineGrained", repos=["local/another"]))
    assert str(error) == f"the token may not write to {repo}; the Hub says: Repository not found"


def test_a_repo_of_somebody_else_is_refused(hub: LocalHub, api: HfApi, parents: Parents, stranger: str) -> None:
    repo = new_repo()
    api.create_repo(repo)
    error = refusal(hub, parents, repo, stranger)
    assert str(error) == f"the token may not write to {repo}; the Hub says: {NO_RIGHTS} write to {repo}"


def test_a_namespace_of_somebody_else_is_refused(hub: LocalHub, parents: Parents, stranger: str) -> None:
    repo = new_repo("local")
    error = refusal(hub, parents, repo, stranger)
    reason = f"{NO_RIGHTS} create a model under the namespace local"
    assert str(error) == f"the token may not write to {repo}; the Hub says: {reason}"


def test_a_right_that_was_lost_since_the_last_run_is_missed_at_once(
    hub: LocalHub, api: HfApi, parents: Parents, stranger: str
) -> None:
    repo = new_repo()
    hub.faults.add(f"POST /api/models/{repo}/commit/main", status=403)
    with pytest.raises(PublishError):
        merge_and_push(parents.recipe(), repo, target_token=hub.token, options=OPTIONS)
    assert staged_shards(api, repo)
    error = refusal(hub, parents, repo, stranger)
    assert str(error) == f"the token may not write to {repo}; the Hub says: {NO_RIGHTS} write to {repo}"


def test_a_wrong_token_is_named(hub: LocalHub, parents: Parents) -> None:
    repo = new_repo()
    error = refusal(hub, parents, repo, "hf_wrong")
    assert str(error) == f"{hub.endpoint} does not accept the token for {repo}"
    assert error.hint == "Run `hf auth login`. --target-token and HF_TOKEN, if set, go before it."


def test_no_token_is_named(hub: LocalHub, parents: Parents) -> None:
    repo = new_repo()
    error = refusal(hub, parents, repo, None)
    assert str(error) == f"writing to {repo} needs a token and none is stored"
    assert error.hint == "Run `hf auth login`."


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("merged", "'merged' does not say whose repo it is"),
        ("a/b/c", "'a/b/c' is not a possible name of a repo on the Hub"),
        ("local/no spaces", "'local/no spaces' is not a possible name of a repo on the Hub"),
    ],
)
def test_a_name_that_no_repo_can_have_is_refused(hub: LocalHub, parents: Parents, repo: str, message: str) -> None:
    error = refusal(hub, parents, repo, hub.token)
    assert (str(error), error.hint) == (message, "Name it OWNER/NAME.")


def test_private_parents_and_the_target_have_a_token_each(
    hub: LocalHub, closed_parents: Parents, stranger: str, expected: Mapping[str, str]
) -> None:
    source = hub.create_token("owner", name="reads-parents", role="read")
    target = hub.create_token("uninvited", name="writes-target")
    repo = new_repo("uninvited")
    hub.requests.clear()
    options = MergeOptions(shard_bytes=SHARD_BYTES, source_token=source)
    merge_and_push(closed_parents.recipe(), repo, private=True, target_token=target, options=options)
    used = {(record.token_name, "owner/" in record.path) for record in hub.requests if record.token_name is not None}
    assert used == {("reads-parents", True), ("writes-target", False)}
    assert shard_hashes(HfApi(token=target), repo) == expected


def test_private_parents_are_not_found_without_a_token(hub: LocalHub, closed_parents: Parents) -> None:
    error = refusal(hub, closed_parents, new_repo(), hub.token)
    assert isinstance(error, SourceError)
    sentence = "  - there is no model {} on the Hub, or it is private and no token was given ({})"
    hint = "Check the name; if it is private, run `hf auth login`."
    lines = [sentence.format(repo, hint) for repo in closed_parents.repos]
    assert str(error) == "\n".join(["2 models cannot be used:", *lines])


def test_gated_parents_open_with_the_token_of_somebody_let_in(
    hub: LocalHub, closed_parents: Parents, stranger: str, expected: Mapping[str, str], tmp_path: Path
) -> None:
    owner = HfApi(token=hub.create_token("owner"))
    parents = write_parents(tmp_path, owner.token, owner="owner")
    for parent in parents.repos:
        owner.update_repo_settings(parent, gated="manual")
    error = refusal(hub, parents, new_repo("uninvited"), stranger)
    assert str(error).splitlines()[1].startswith(f"  - {parents.repos[0]} is gated, and a reader without an account")
    for parent in parents.repos:
        owner.grant_access(parent, "uninvited")
    options = MergeOptions(shard_bytes=SHARD_BYTES, source_token=stranger)
    repo = new_repo("uninvited")
    merge_and_push(parents.recipe(), repo, target_token=stranger, options=options)
    assert shard_hashes(HfApi(token=stranger), repo) == expected


def test_a_bad_source_token_is_said_once(hub: LocalHub, parents: Parents) -> None:
    options = MergeOptions(source_token="hf_wrong")
    with pytest.raises(SourceError) as caught:
        merge_and_push(parents.recipe(), new_repo(), target_token=hub.token, options=options)
    assert str(caught.value) == "the Hub does not accept the token"
