"""The fuzz targets accept their seeds and thousands of random mutations of them."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.__main__ import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_target_accepts_its_seeds_and_mutations(name: str) -> None:
    rng, begun = random.Random(10), list(seeds(name))
    assert begun
    for seed in begun:
        TARGETS[name](seed)
    for _ in range(300):
        TARGETS[name](mutated(rng, rng.choice(begun), begun))
