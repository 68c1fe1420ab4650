from __future__ import annotations

import pytest

from hubmerge.diagnostics import meaning
from hubmerge.diagnostics.diagnostics import Diagnostics, NonFinite
from tests.diagnostics.made_up import compared, diagnosed, noise

LAYERS = 4
BASE = [noise(layer) for layer in range(LAYERS)]


def tuned(seed: int, scale: float = 0.01, *, equal_in: int = 0) -> list:
    return [base.clone() if layer < equal_in else base + noise(seed + layer, scale) for layer, base in enumerate(BASE)]


A, B = tuned(100), tuned(200)
STRANGER = [noise(900 + layer) for layer in range(LAYERS)]


def test_models_of_another_base() -> None:
    assert meaning.unrelated(compared({"base": BASE, "A": A, "S": STRANGER}, has_base=True)) == [
        "S is not tuned from base: their weights have a cosine of 0.01."
    ]
    assert meaning.unrelated(compared({"A": A, "B": B, "S": STRANGER}, has_base=False)) == [
        "A and S are not tuned from the same base: their weights have a cosine of 0.01.",
        "B and S are not tuned from the same base: their weights have a cosine of 0.01.",
    ]
    assert meaning.unrelated(compared({"A": A, "B": B}, has_base=False)) == []


def test_of_many_unrelated_pairs_three_are_named() -> None:
    strangers = {name: [noise(1000 * number)] for number, name in enumerate("ABCD")}
    *named, more = meaning.unrelated(compared(strangers, has_base=False))
    assert len(named) == 3
    assert more == "The same is true of 3 more pairs."


def test_of_many_models_with_frozen_layers_three_are_named() -> None:
    frozen = {name: tuned(1000 * number, equal_in=2) for number, name in enumerate("ABCDE", start=1)}
    assert meaning.equal_layers(compared(frozen, has_base=False)) == [
        "B equals A in 2 of 4 layers.",
        "C equals A in 2 of 4 layers.",
        "D equals A in 2 of 4 layers.",
        "Some layers of 7 more pairs are equal, too.",
    ]
    based = compared({"base": BASE, **{name: frozen[name] for name in "ABCD"}}, has_base=True)
    assert meaning.equal_layers(based)[-1] == "Some layers of 1 more model are equal, too."


def test_models_that_are_the_same() -> None:
    assert meaning.same_models(compared({"A": A, "B": list(A)}, has_base=False)) == [
        "A and B are equal in every layer."
    ]
    assert meaning.same_models(compared({"base": BASE, "A": A, "C": list(BASE)}, has_base=True)) == [
        "C equals its base base in every layer, and adds nothing there."
    ]
    assert meaning.same_models(compared({"A": A, "B": B}, has_base=False)) == []


def test_layers_that_are_equal() -> None:
    partly = tuned(300, equal_in=3)
    assert meaning.equal_layers(compared({"base": BASE, "A": A, "C": partly}, has_base=True)) == [
        "C equals the base in 3 of 4 layers."
    ]
    assert meaning.equal_layers(compared({"A": BASE, "C": partly}, has_base=False)) == ["C equals A in 3 of 4 layers."]
    assert meaning.equal_layers(compared({"base": BASE, "A": A}, has_base=True)) == []


def test_a_task_vector_that_dwarfs_the_others() -> None:
    models = {"base": BASE, "A": A, "B": B, "L": tuned(400, 0.12)}
    assert meaning.long_task_vectors(compared(models, has_base=True)) == [
        "The task vector of L is 12 times as long as the others'."
    ]
    assert meaning.long_task_vectors(compared({"base": BASE, "A": A, "L": tuned(400, 0.12)}, has_base=True)) == [
        "The task vector of L is 12 times as long as the other's."
    ]
    assert meaning.long_task_vectors(compared({"base": BASE, "A": A, "B": B}, has_base=True)) == []


def test_sizes() -> None:
    assert meaning.sizes(compared({"base": BASE, "A": A, "B": tuned(200, 0.02)}, has_base=True)) == [
        "The task vectors are 0.99 % to 2 % as long as the base's weights."
    ]
    assert meaning.sizes(compared({"base": BASE, "A": A}, has_base=True)) == [
        "The task vector of A is 0.99 % as long as the base's weights."
    ]
    assert meaning.sizes(compared({"A": A, "B": B}, has_base=False)) == [
        "A and B differ by 1.4 % of their weights' length."
    ]
    assert meaning.sizes(compared({"A": A, "B": list(A)}, has_base=False)) == []


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "are nearly orthogonal: they change different things"),
        (1.0, "overlap in part"),
        (3.0, "are aligned: they change much the same"),
        (-3.0, "oppose each other"),
    ],
)
def test_angles(share: float, said: str) -> None:
    other = [base + share * (a - base) + noise(700 + i, 0.015) for i, (base, a) in enumerate(zip(BASE, A, strict=True))]
    (sentence,) = meaning.angles(compared({"base": BASE, "A": A, "B": other}, has_base=True))
    assert sentence.startswith(f"The task vectors of A and B {said} (cosine ")


def test_angles_of_many_are_told_as_a_range() -> None:
    (sentence,) = meaning.angles(compared({"base": BASE, "A": A, "B": B, "C": tuned(300)}, has_base=True))
    assert sentence.startswith("The task vectors are nearly orthogonal: they change different things (cosine")


def test_no_angle_without_a_base_or_with_one_task_vector() -> None:
    assert meaning.angles(compared({"A": A, "B": B}, has_base=False)) == []
    assert meaning.angles(compared({"base": BASE, "A": A}, has_base=True)) == []


def test_signs() -> None:
    by_chance = meaning.signs(compared({"base": BASE, "A": A, "B": B}, has_base=True))
    assert by_chance == [
        "Where both task vectors change an element, they pull it apart in 50 % of cases, as often as by chance."
    ]
    opposite = [2 * base - a for base, a in zip(BASE, A, strict=True)]
    assert meaning.signs(compared({"base": BASE, "A": A, "B": opposite}, has_base=True)) == [
        "Where both task vectors change an element, they pull it apart in 100 % of cases, more than by chance (50 %)."
    ]
    assert meaning.signs(compared({"base": BASE, "A": A, "B": list(A)}, has_base=True)) == [
        "Where both task vectors change an element, they pull it apart in 0 % of cases, less than by chance (50 %)."
    ]


def test_signs_of_many() -> None:
    models = {"base": BASE, "A": A, "B": B, "C": tuned(300)}
    assert meaning.signs(compared(models, has_base=True))[0].startswith("Where two task vectors change an element, ")


def test_what_is_tiny_is_said_in_plain_numbers() -> None:
    (sentence,) = meaning.sizes(compared({"base": BASE, "A": tuned(100, 1e-5)}, has_base=True))
    assert sentence == "The task vector of A is less than 0.01 % as long as the base's weights."


def test_kept() -> None:
    assert meaning.kept(compared({"base": BASE, "A": A}, has_base=True, kept=0.5)) == [
        "The method keeps 50 % of the elements that tuning changed."
    ]
    assert meaning.kept(compared({"base": BASE, "A": A}, has_base=True)) == []


def test_norms_do_not_count_where_there_are_matrices() -> None:
    matrices = diagnosed({"base": BASE, "S": STRANGER}, has_base=True)
    norms = diagnosed({"base": BASE, "S": list(BASE)}, has_base=True, role="norm")
    both = Diagnostics("ties", LAYERS, (*matrices.cells, *norms.cells), 8, 8, 8, 1, 1)
    assert meaning.unrelated(meaning.comparisons(both)[0])


def test_what_is_wrong_comes_first_and_nothing_is_said_twice() -> None:
    found = meaning.sentences(diagnosed({"base": BASE, "A": A, "S": STRANGER}, has_base=True))
    assert found[0] == "S is not tuned from base: their weights have a cosine of 0.01."
    assert len(set(found)) == len(found)


def test_values_that_are_not_finite() -> None:
    copied = NonFinite("mask", (("A", 3),), 3, is_copied=True)
    merged = NonFinite("w", (("A", 1), ("B", 2)), 3, is_copied=False)
    own = NonFinite("v", (), 1, is_copied=False)
    diagnostics = Diagnostics("ties", 0, (), 3, 2, 0, 0, 0, non_finite=(copied, merged, own))
    assert meaning.warnings(diagnostics) == (
        "mask holds NaN or infinity in 3 values, as A has it.",
        "w holds NaN or infinity in 3 values, from A and B.",
        "v holds NaN or infinity in 1 value, from the merge itself.",
    )
