from __future__ import annotations

import pytest

from vitfeat.models.entry import builtin_catalog
from vitfeat.text import nearest, some


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dino-B16", "dino-b16"),
        ("DINO-S16", "dino-s16"),
        ("Clip-L14-336", "clip-l14-336"),
        ("dino-b61", "dino-b16"),
    ],
)
def test_the_nearest_word_is_found_whatever_its_letter_case(word: str, expected: str) -> None:
    assert nearest(word, builtin_catalog()) == f" (did you mean {expected!r}?)"


def test_names_with_capitals_are_given_as_they_are_spelt() -> None:
    assert nearest("vit-b-16", ["ViT-B-32", "ViT-B-16"]) == " (did you mean 'ViT-B-16'?)"


def test_nothing_near_gives_nothing() -> None:
    assert nearest("zzz", ["dino-b16"]) == ""


@pytest.mark.parametrize(
    ("words", "expected"), [([], ""), (["a", "b"], "a, b"), (["a", "b", "c"], "a, b, ...")]
)
def test_of_many_words_some_are_shown(words: list[str], expected: str) -> None:
    assert some(words, 2) == expected
