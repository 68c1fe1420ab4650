"""A preference tuning from its settings to a published model: plan, merge, train, fold, prove, publish.

Each part leaves its result in the run's folder, and is not done again by the next run of the same settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.licensing import check_publishable
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import OpenMerge, merge_to_folder, open_merge, planned_licence
from hubmerge.merge.recipe import Recipe
from hubmerge.publish import Published
from hubmerge.trainer.curves import curves
from hubmerge.trainer.data import Preferences, left_out, load_preferences
from hubmerge.trainer.data_checks import Encoded, TokenisedPair, encode, tokenised
from hubmerge.trainer.fold import fold, quantised_recipe, tuned_recipe, untuned_recipe
from hubmerge.trainer.gpu import check_machine
from hubmerge.trainer.load import Weights, check_libraries, check_report, load_model, quiet, release
from hubmerge.trainer.order import in_training_order
from hubmerge.trainer.plan import DpoPlan, make_plan, notes, with_all_pairs
from hubmerge.trainer.progress import DpoProgress, DpoStage, Unseen, Wordless
from hubmerge.trainer.proof import Proof, check, measure, proof_from, score
from hubmerge.trainer.publish import Finished, publish
from hubmerge.trainer.settings import DpoSettings
from hubmerge.trainer.state import RunFolder, run_folder, save_json
from hubmerge.trainer.story import Story, preference_data, proof_sentence, survival_sentences
from hubmerge.trainer.survival import Survival, survival
from hubmerge.trainer.target import check_target, prepare_target
from hubmerge.trainer.tasks import check_tasks, run_tasks
from hubmerge.trainer.train import Job, Trained, train


@dataclass(frozen=True)
class DpoOptions:
    """What holds for any tuning, whatever is tuned.

    Attributes:
        work_dir: Holds the folders of all runs; None for the user's cache.
        merge: For reading the model and for folding the adapter in; its token reads the data too.
        target_token: For writing; None for the token that the user logged in with.
    """

    work_dir: Path | None = None
    merge: MergeOptions = field(default_factory=MergeOptions)
    target_token: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What came out of a run."""

    published: Published
    story: Story


def tune(settings: DpoSettings, options: DpoOptions | None = None, progress: DpoProgress | None = None) -> Tuned:
    """Returns where the tuned model was published, and everything that was found out on the way.

    Raises:
        HubmergeError: One of its kinds; nothing was published, and what was done is not lost.
    """
    options, progress = options or DpoOptions(), progress or Unseen()
    token = options.merge.source_token
    check_target(settings)
    check_libraries()
    check_tasks(settings.evaluation.tasks)
    check_report(settings.training.report_to)
    progress.begin(DpoStage.PLAN)
    plan = make_plan(settings, token=token)
    check_machine(plan.subject.shape, settings.training.precision)
    untuned = untuned_recipe(settings, plan.subject.sha)
    with open_merge(untuned, options.merge) as merge:
        _check_licence(settings, merge)
        merge_fingerprint = fingerprint(merge.plan)
    prepare_target(settings, token=options.target_token)
    progress.begin(DpoStage.DATA)
    preferences = load_preferences(plan.opened, settings.evaluation, chat=plan.has_chat, token=token)
    lengths = tuple(tokenised(pair, plan.subject.tokenizer) for pair in preferences.train)
    plan = with_all_pairs(plan, lengths)
    for sentence in (*notes(plan), *left_out(preferences)):
        progress.say(f"Note: {sentence}")
    folder = run_folder(plan, merge_fingerprint, options.work_dir)
    progress.say(f"Working in {folder.root}")
    with folder.locked():
        return _Run(plan, untuned, preferences, lengths, folder, options, progress).finish()


@dataclass(frozen=True)
class _Run:
    """The parts of a run that need its plan.

    Attributes:
        untuned: Makes the model as it is before.
        lengths: Of each pair that is trained on.
    """

    plan: DpoPlan
    untuned: Recipe
    preferences: Preferences
    lengths: tuple[TokenisedPair, ...]
    folder: RunFolder
    options: DpoOptions
    progress: DpoProgress

    def finish(self) -> Tuned:
        """Trains, folds, proves and publishes."""
        weights = self._weights()
        trained = self._train(weights)
        recipe = self._tuned_recipe(weights)
        settings = self.plan.settings
        with open_merge(recipe, self.options.merge) as merge, self._told(recipe, merge) as told:
            folded = None if settings.result.publish == "adapter" else self._fold(recipe)
            left = None if folded is None else survival(merge, folded)
            self._say_survival(left)
            proof = self._prove(weights, folded)
            story = self._story(trained, proof, left, weights, folded)
            self.progress.begin(DpoStage.PUBLISH)
            finished = Finished(merge, told, folded, self.folder.adapter, story)
            published = publish(
                finished, settings.result, token=self.options.target_token, progress=self.progress.merging
            )
        return Tuned(published, story)

    def _weights(self) -> Weights:
        """Returns the untuned weights as transformers loads them; a recipe is merged first."""
        model = self.plan.settings.model
        if not isinstance(model, Recipe):
            return Weights(model.path, self.plan.subject.sha)
        if not (self.folder.merged / "config.json").is_file():
            self.progress.begin(DpoStage.MERGE)
            options = replace(self.options.merge, lineage=False)
            merge_to_folder(self.untuned, self.folder.merged, options=options, progress=self.progress.merging)
        return Weights(str(self.folder.merged))

    def _train(self, weights: Weights) -> Trained:
        settings, tokenizer = self.plan.settings, self.plan.subject.tokenizer
        if tokenizer.pad_token is None:
            self.progress.say(f"! The tokenizer has no padding token, so {tokenizer.eos_token} takes its place")
        rows, pairs = in_training_order(self.preferences.train, self.lengths, settings.training)
        self.progress.begin(DpoStage.TRAIN)
        job = Job(
            settings=settings,
            weights=weights,
            tokenizer=tokenizer,
            rows=rows,
            pairs=pairs,
            budget_bytes=self.plan.choice.budget.tensors,
            checkpoints=self.folder.checkpoints,
            adapter=self.folder.adapter,
            token=self.options.merge.source_token,
        )
        return train(job, self.progress)

    def _tuned_recipe(self, weights: Weights) -> Recipe:
        settings = self.plan.settings
        base = self.untuned
        if settings.result.fold_base == "nf4" and settings.result.publish != "adapter":
            token = self.options.merge.source_token
            base = quantised_recipe(self.folder, weights, precision=settings.training.precision, token=token)
        return tuned_recipe(base, self.folder.adapter, rounding=settings.result.round)

    @contextmanager
    def _told(self, recipe: Recipe, merge: OpenMerge) -> Iterator[OpenMerge]:
        """Gives the merge whose recipe is published: that of the model itself, not of what NF4 left of it."""
        public = tuned_recipe(self.untuned, self.folder.adapter, rounding=self.plan.settings.result.round)
        if public == recipe:
            yield merge
        else:
            with open_merge(public, self.options.merge) as told:
                yield told

    def _fold(self, recipe: Recipe) -> Path:
        self.progress.begin(DpoStage.FOLD)
        options = replace(self.options.merge, lineage=False, diagnostics=False)
        return fold(recipe, self.folder, options, Wordless(self.progress.merging))

    def _say_survival(self, left: Survival | None) -> None:
        for sentence in () if left is None else survival_sentences(left):
            self.progress.say(sentence)

    def _prove(self, weights: Weights, folded: Path | None) -> Proof | None:
        """Returns what was measured on the held-out pairs; None where there are none."""
        settings, tokenizer = self.plan.settings, self.plan.subject.tokenizer
        assert settings.training.max_length is not None
        pairs = [encode(pair, tokenizer, max_length=settings.training.max_length) for pair in self.preferences.held_out]
        pairs = [pair for pair in pairs if pair.chosen and pair.rejected and pair.prompt]
        if not pairs:
            self.progress.say("! No pairs were held out, so nothing is proven")
            return None
        done = self.folder.proof(folded)
        if done.is_file():
            proof = proof_from(json.loads(done.read_text()))
        else:
            self.progress.begin(DpoStage.PROVE)
            with quiet():
                proof = self._measured(weights, folded, pairs)
            save_json(done, asdict(proof))
        self.progress.say(proof_sentence(proof))
        check(proof)
        return proof

    def _measured(self, weights: Weights, folded: Path | None, pairs: Sequence[Encoded]) -> Proof:
        """Returns the proof; one model is in memory at a time."""
        settings, token = self.plan.settings, self.options.merge.source_token
        precision, beta = settings.training.precision, settings.loss.beta
        model = load_model(
            weights, quant=settings.memory.quant, precision=precision, adapter=self.folder.adapter, token=token
        )
        policy = score(model, pairs)
        with model.disable_adapter():
            reference = score(model, pairs)
        del model
        release()
        if folded is None:
            measured = measure(policy, reference, pairs, beta=beta)
            return Proof(reference.accuracy, policy.accuracy, policy.accuracy, measured, measured)
        base = reference
        if settings.memory.quant != "none":
            base = score(load_model(weights, quant="none", precision=precision, token=token), pairs)
            release()
        result = score(load_model(Weights(str(folded)), quant="none", precision=precision), pairs)
        release()
        before = reference if settings.result.fold_base == "nf4" else base
        return Proof(
            base_accuracy=base.accuracy,
            policy_accuracy=policy.accuracy,
            result_accuracy=result.accuracy,
            policy=measure(policy, reference, pairs, beta=beta),
            result=measure(result, before, pairs, beta=beta),
        )

    def _story(
        self, trained: Trained, proof: Proof | None, left: Survival | None, weights: Weights, folded: Path | None
    ) -> Story:
        settings = self.plan.settings
        return Story(
            settings=settings,
            is_merge=isinstance(settings.model, Recipe),
            data=preference_data(self.plan),
            trained=trained,
            proof=proof,
            survival=left,
            curves=curves(trained.history),
            tasks=self._tasks(weights, folded),
        )

    def _tasks(self, weights: Weights, folded: Path | None) -> Mapping[str, Any]:
        """Returns the results of the benchmarks that are asked for; those of an earlier run are kept."""
        tasks, path = self.plan.settings.evaluation.tasks, self.folder.tasks(folded)
        known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        missing = [task for task in tasks if task not in known]
        if missing:
            self.progress.say(f"Running {', '.join(missing)} on the model before and after ...")
            known |= run_tasks(missing, before=weights, after=folded, adapter=self.folder.adapter)
            save_json(path, known)
        return {task: known[task] for task in tasks}


def _check_licence(settings: DpoSettings, merge: Any) -> None:
    """Raises LicenceError before the training rather than after it."""
    if settings.result.push_to is not None:
        check_publishable(planned_licence(merge))
