"""Every error that hubmerge raises on purpose.

HubmergeError              what went wrong, where, and what to do next; the CLI prints it and exits with `exit_code`
├── RecipeError            the recipe file: a dotted path and a line
├── SourceError            a parent cannot be used: unknown, gated, private, pickle only, quantised
│   └── HeaderError        a safetensors header is broken or hostile
├── PlanError              the parents do not fit together; lists every incompatibility at once
├── MergeError             a tensor cannot be merged with these values (found while computing)
├── LimitError             the machine, or what a merge may take of it, is too small: memory, disk, threads
├── TransferError          bytes did not arrive as asked for, after all retries
├── PublishError           the target cannot be written
│   └── TargetMovedError   the target changed while the merge ran
├── CardError              a model card, a template or a lock file cannot be read or is refused
├── AutomationError        a job, a webhook or what stands around merges cannot be set up
├── LicenceError           the parents' licences do not allow the merge; somebody has to decide
├── ParentsChangedError    a parent changed in a way that a person has to look at before the merge is made again
├── TrainError             preference tuning: settings that cannot be used, or a training that failed
│   ├── DataError          the preference data cannot be used
│   ├── BudgetError        the training does not fit the memory; says what would
│   └── ProofError         the published result would not be what was trained
└── HubServerError         the local Hub could not start
"""

from __future__ import annotations

from collections.abc import Sequence


class HubmergeError(Exception):
    """A mistake or a misfortune that is not a bug: one sentence, and the next step in `hint`.

    Attributes:
        hint: What to do next, as a sentence or a command line; printed on its own line.
        exit_code: The exit status of the CLI: 3 where a person has to decide, 1 for everything else.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class RecipeError(HubmergeError):
    """The recipe does not say something that can be done; the message begins with its path and line."""


class SourceError(HubmergeError):
    """A parent checkpoint, its files or its tokenizer cannot be used."""


class HeaderError(SourceError):
    """A safetensors header that is broken, truncated or hostile."""


class PlanError(HubmergeError):
    """The recipe and the checkpoints do not fit together.

    Attributes:
        problems: Every incompatibility found, one sentence each, in plan order.
    """

    def __init__(
        self,
        problems: Sequence[str],
        *,
        hint: str | None = None,
        summary: str = "things in the recipe do not fit its models",
    ) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            lines = "\n".join(f"  - {problem}" for problem in self.problems)
            message = f"{len(self.problems)} {summary}:\n{lines}"
        super().__init__(message, hint=hint)


class MergeError(HubmergeError):
    """A tensor cannot be merged with the values that it holds; the message names it."""


class LimitError(HubmergeError):
    """A merge needs more memory, disk or threads than the machine has or a budget allows."""


class TransferError(HubmergeError):
    """Bytes did not arrive as they were asked for, after every retry."""


class PublishError(HubmergeError):
    """The target repo or folder cannot be written."""


class TargetMovedError(PublishError):
    """The target branch got another commit while the merge ran; nothing was overwritten."""


class CardError(HubmergeError):
    """A model card, its template or a lock file that cannot be read, or that the Hub refuses."""


class AutomationError(HubmergeError):
    """A job, a webhook, a repository of recipes or the extension of `hf` that cannot be set up."""


class LicenceError(HubmergeError):
    """The parents' licences do not allow a merge to be published; a person may decide otherwise."""

    exit_code = 3


class ParentsChangedError(HubmergeError):
    """A parent's licence or access changed, or it is gone, since the merge was made; a person has to look at it."""

    exit_code = 3


class TrainError(HubmergeError):
    """Preference tuning cannot start with these settings, or failed while it ran."""


class DataError(TrainError):
    """The preference data cannot be read, or is no preference data for this model."""


class BudgetError(TrainError):
    """The training does not fit the memory; `hint` names the nearest settings that do."""


class ProofError(TrainError):
    """The artefact does not keep what the training taught it; nothing was published."""


class HubServerError(HubmergeError):
    """The local Hub cannot start or lacks its extra packages."""
