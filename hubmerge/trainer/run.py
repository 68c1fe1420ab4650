"""A preference tuning from its settings to a published model: plan, merge, train, fold, prove, publish.

Each part leaves its result in the run's folder, and is not done again by the next run of the same settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hubmerge.errors import DataError, TrainError
from hubmerge.merge.fingerprint import fingerprint
from hubmerge.merge.layers import main_stack, role
from hubmerge.merge.licensing import check_publishable
from hubmerge.merge.options import MergeOptions
from hubmerge.merge.pipeline import merge_to_folder, open_merge, planned_licence
from hubmerge.merge.plan import Plan
from hubmerge.merge.recipe import Recipe
from hubmerge.publish import Published
from hubmerge.trainer.curves import curves
from hubmerge.trainer.data import Preferences, load_preferences
from hubmerge.trainer.data_checks import Encoded, encode, tokenised
from hubmerge.trainer.fold import fold, quantised_recipe, tuned_recipe, untuned_recipe
from hubmerge.trainer.load import Weights, check_libraries, load_model, release
from hubmerge.trainer.order import in_training_order
from hubmerge.trainer.plan import DpoPlan, make_plan, with_all_pairs
from hubmerge.trainer.progress import DpoProgress, DpoStage, Unseen
from hubmerge.trainer.proof import Proof, check, measure, score
from hubmerge.trainer.publish import Finished, publish
from hubmerge.trainer.settings import DpoSettings
from hubmerge.trainer.state import RunFolder, run_folder
from hubmerge.trainer.story import Story, preference_data, proof_sentence, survival_sentences
from hubmerge.trainer.survival import Survival, survival
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
    check_libraries()
    check_tasks(settings.evaluation.tasks)
    _check_target(settings)
    progress.begin(DpoStage.PLAN)
    plan = make_plan(settings, token=options.merge.source_token)
    untuned = untuned_recipe(settings, plan.subject.sha)
    with open_merge(untuned, options.merge) as merge:
        check_vocabulary(merge.plan, plan.subject.tokenizer)
        _check_licence(settings, merge)
        merge_fingerprint = fingerprint(merge.plan)
    preferences = load_preferences(
        plan.opened, settings.evaluation, chat=plan.has_chat, token=options.merge.source_token
    )
    plan = with_all_pairs(plan, [tokenised(pair, plan.subject.tokenizer) for pair in preferences.train])
    folder = run_folder(plan, merge_fingerprint, options.work_dir)
    progress.say(f"Working in {folder.root}")
    return _Run(plan, untuned, preferences, folder, options, progress).finish()


@dataclass(frozen=True)
class _Run:
    """The parts of a run that need its plan."""

    plan: DpoPlan
    untuned: Recipe
    preferences: Preferences
    folder: RunFolder
    options: DpoOptions
    progress: DpoProgress

    def finish(self) -> Tuned:
        """Trains, folds, proves and publishes."""
        weights = self._weights()
        trained = self._train(weights)
        recipe = self._tuned_recipe(weights)
        settings = self.plan.settings
        with open_merge(recipe, self.options.merge) as merge:
            folded = None if settings.result.publish == "adapter" else self._fold(recipe)
            left = None if folded is None else survival(merge, folded)
            self._say_survival(left)
            proof = self._prove(weights, folded)
            story = self._story(trained, proof, left, weights, folded)
            self.progress.begin(DpoStage.PUBLISH)
            finished = Finished(merge, folded, self.folder.adapter, story)
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
        training = settings.training
        assert training.max_length is not None
        assert training.batch_size is not None
        if tokenizer.pad_token is None:
            self.progress.say(f"! The tokenizer has no padding token, so {tokenizer.eos_token} takes its place")
        rows, _ = in_training_order(
            self.preferences.train,
            tokenizer,
            max_length=training.max_length,
            batch_size=training.batch_size,
            seed=training.seed,
        )
        self.progress.begin(DpoStage.TRAIN)
        token = self.options.merge.source_token
        job = Job(settings, weights, tokenizer, rows, self.folder.checkpoints, self.folder.adapter, token)
        return train(job, self.progress)

    def _tuned_recipe(self, weights: Weights) -> Recipe:
        settings = self.plan.settings
        base = self.untuned
        if settings.result.fold_base == "nf4" and settings.memory.quant == "nf4":
            token = self.options.merge.source_token
            base = quantised_recipe(self.folder, weights, precision=settings.training.precision, token=token)
        return tuned_recipe(base, self.folder.adapter, rounding=settings.result.round)

    def _fold(self, recipe: Recipe) -> Path:
        self.progress.begin(DpoStage.FOLD)
        options = replace(self.options.merge, lineage=False)
        return fold(recipe, self.folder, options, self.progress.merging)

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
        self.progress.begin(DpoStage.PROVE)
        proof = self._measured(weights, folded, pairs)
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
        return Proof(
            base_accuracy=base.accuracy,
            policy_accuracy=policy.accuracy,
            result_accuracy=result.accuracy,
            policy=measure(policy, reference, pairs, beta=beta),
            result=measure(result, base, pairs, beta=beta),
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
            tasks=run_tasks(settings.evaluation.tasks, before=weights, after=folded, adapter=self.folder.adapter),
        )


def check_vocabulary(plan: Plan, tokenizer: Any) -> None:
    """Raises DataError if the tokenizer knows tokens that the model has no embedding for."""
    tensors = {tensor.info.name: tensor.info for tensor in plan.tensors}
    stack = main_stack(tensors, plan.config)
    rows = next((info.shape[0] for name, info in tensors.items() if role(name, stack) == "embed"), None)
    if rows is not None and len(tokenizer) > rows:
        raise DataError(
            f"the tokenizer has {len(tokenizer):,} tokens and the model embeddings for {rows:,}",
            hint="Give the model the tokenizer that it was trained with; a merge takes one by `tokenizer:`.",
        )


def _check_target(settings: DpoSettings) -> None:
    result = settings.result
    if (result.push_to is None) == (result.folder is None):
        raise TrainError("a tuning needs one target", hint="Name it: --push-to OWNER/NAME or --out DIR.")
    is_local = isinstance(settings.model, Recipe) or settings.model.is_local
    if result.publish == "adapter" and result.push_to is not None and is_local:
        raise TrainError(
            "an adapter alone is of use only on a base that is on the Hub, and this one is not",
            hint="Publish the whole model, or leave the adapter in a folder: --out DIR.",
        )


def _check_licence(settings: DpoSettings, merge: Any) -> None:
    """Raises LicenceError before the training rather than after it."""
    if settings.result.push_to is not None:
        check_publishable(planned_licence(merge))
