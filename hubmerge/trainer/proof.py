"""What a tuning taught, measured on held-out pairs: of the policy as trained, and of the model that is published.

A model's reward for an answer is β · (log π(answer) − log ref(answer)) (https://arxiv.org/abs/2305.18290); the margin
is the chosen answer's reward less the rejected one's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubmerge.errors import ProofError
from hubmerge.trainer.data_checks import Encoded

if TYPE_CHECKING:
    from torch import Tensor

KEPT_SHARE = 0.9
"""Of the policy's margin that the published model must have."""

Z = 1.96
"""Of a 95 % confidence interval."""

KL_TOKENS = 2048
"""Tokens of answers whose whole distributions are compared; a vocabulary of 128,000 in fp32 makes 1 GB of them."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities that one model gives to the answers of all pairs, in nats.

    Attributes:
        distributions: Log-probabilities of the whole vocabulary at the first `KL_TOKENS` tokens of chosen answers,
            `(tokens, vocabulary)` in fp32 on the CPU; None where they were not asked for.
    """

    chosen: tuple[float, ...]
    rejected: tuple[float, ...]
    distributions: Tensor | None = None

    @property
    def accuracy(self) -> float:
        """Share of pairs whose chosen answer is the more probable one; ties count half."""
        return _accuracy([c - r for c, r in zip(self.chosen, self.rejected, strict=True)])


@dataclass(frozen=True)
class Metrics:
    """A model against its reference on the held-out pairs.

    Attributes:
        accuracy: Share of pairs with a positive margin; ties count half.
        accuracy_low: Of its 95 % confidence interval (Wilson's).
        margin: Mean.
        margin_error: Its standard error.
        chosen_log_ratio: Mean of log π − log ref of the chosen answers, in nats; far below 0 the model unlearns them.
        length_controlled_accuracy: Mean of the accuracies where the chosen answer is the longer one and where it is
            not; of the one that has pairs if the other has none.
        kl: Mean of KL(π‖ref) over tokens, exact over the vocabulary, in nats; None where it was not measured.
        kl_tokens: How many tokens that is the mean of, the first ones of the chosen answers.
    """

    pairs: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    margin: float
    margin_error: float
    chosen_log_ratio: float
    length_controlled_accuracy: float
    kl: float | None
    kl_tokens: int

    @property
    def is_significant(self) -> bool:
        """Whether the margin is above 0 beyond its noise."""
        return self.margin > Z * self.margin_error


@dataclass(frozen=True)
class Proof:
    """All that was measured.

    Attributes:
        base_accuracy: Share of pairs whose chosen answer the untuned model finds more probable.
        policy: As trained, against what it was trained on.
        result: As published, against the untuned weights.
    """

    base_accuracy: float
    policy_accuracy: float
    result_accuracy: float
    policy: Metrics
    result: Metrics

    @property
    def kept(self) -> float:
        """Share of the policy's margin that the result has."""
        return self.result.margin / self.policy.margin if self.policy.margin else 1.0


def proof_from(found: Mapping[str, Any]) -> Proof:
    """Returns the proof that `dataclasses.asdict` was taken of."""
    return Proof(**{**found, "policy": Metrics(**found["policy"]), "result": Metrics(**found["result"])})


def score(model: Any, pairs: Sequence[Encoded], *, with_distributions: bool = True) -> Scores:
    """Returns what a model gives to each answer, one sequence at a time."""
    import torch

    model.eval()
    chosen, rejected, kept, room = [], [], [], KL_TOKENS
    with torch.inference_mode():
        for pair in pairs:
            logs = _answer_logs(model, pair.prompt, pair.chosen)
            chosen.append(_total(logs, pair.chosen))
            if with_distributions and room > 0:
                kept.append(logs[:room].cpu())
                room -= len(kept[-1])
            rejected.append(_total(_answer_logs(model, pair.prompt, pair.rejected), pair.rejected))
    return Scores(tuple(chosen), tuple(rejected), torch.cat(kept) if kept else None)


def measure(policy: Scores, reference: Scores, pairs: Sequence[Encoded], *, beta: float) -> Metrics:
    """Returns how a policy differs from its reference."""
    chosen = [p - r for p, r in zip(policy.chosen, reference.chosen, strict=True)]
    rejected = [p - r for p, r in zip(policy.rejected, reference.rejected, strict=True)]
    margins = [beta * (c - r) for c, r in zip(chosen, rejected, strict=True)]
    accuracy = _accuracy(margins)
    low, high = wilson(accuracy, len(margins))
    return Metrics(
        pairs=len(margins),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        margin=_mean(margins),
        margin_error=_standard_error(margins),
        chosen_log_ratio=_mean(chosen),
        length_controlled_accuracy=_length_controlled(margins, pairs),
        kl=_kl(policy.distributions, reference.distributions),
        kl_tokens=0 if policy.distributions is None else len(policy.distributions),
    )


def check(proof: Proof) -> None:
    """Raises ProofError if a margin is no number, or the result keeps too little of one that is there to be kept."""
    for called, metrics in (("trained", proof.policy), ("folded", proof.result)):
        if not math.isfinite(metrics.margin):
            raise ProofError(
                f"the margin of the {called} model on the held-out pairs is {metrics.margin}",
                hint="Nothing was published: train with a lower learning rate.",
            )
    if proof.policy.is_significant and proof.kept < KEPT_SHARE:
        raise ProofError(
            f"the folded model keeps {proof.kept:.0%} of the margin that was trained "
            f"({proof.result.margin:.3g} of {proof.policy.margin:.3g}), and {KEPT_SHARE:.0%} are wanted",
            hint="Nothing was published and nothing is lost: fold again with --round stochastic or --fold-base nf4, "
            "or publish --adapter-only.",
        )


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a share (https://doi.org/10.1080/01621459.1927.10502953)."""
    if count == 0:
        return 0.0, 1.0
    spread = Z * math.sqrt(share * (1 - share) / count + (Z / (2 * count)) ** 2)
    center, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def as_data(metrics: Metrics) -> Mapping[str, float]:
    """Returns the numbers by name, those that were measured."""
    return {name: value for name, value in vars(metrics).items() if value is not None}


def _answer_logs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Returns log-probabilities of the whole vocabulary at each token of an answer, `(tokens, vocabulary)` in fp32."""
    import torch

    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1]
    logs: Tensor = logits.float().log_softmax(-1)
    return logs


def _total(logs: Tensor, answer: Sequence[int]) -> float:
    import torch

    picked = logs.gather(1, torch.tensor(answer, device=logs.device).unsqueeze(1))
    return float(picked.double().sum())


def _accuracy(differences: Sequence[float]) -> float:
    return sum(0.5 if each == 0 else float(each > 0) for each in differences) / max(1, len(differences))


def _length_controlled(margins: Sequence[float], pairs: Sequence[Encoded]) -> float:
    def among(is_in: Callable[[Encoded], bool]) -> Iterator[float]:
        chosen = [margin for margin, pair in zip(margins, pairs, strict=True) if is_in(pair)]
        yield from [_accuracy(chosen)] if chosen else []

    longer = [*among(lambda pair: len(pair.chosen) > len(pair.rejected))]
    others = [*among(lambda pair: len(pair.chosen) <= len(pair.rejected))]
    return _mean([*longer, *others])


def _kl(policy: Tensor | None, reference: Tensor | None) -> float | None:
    if policy is None or reference is None:
        return None
    divergence = (policy.exp() * (policy - reference)).sum(-1)
    return float(divergence.double().mean())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / max(1, len(values))


def _standard_error(values: Sequence[float]) -> float:
    """Returns the standard error of the mean; infinite for less than two values, from which nothing follows."""
    if len(values) < 2:
        return math.inf
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) * (len(values) - 1)))
