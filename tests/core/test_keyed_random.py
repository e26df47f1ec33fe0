"""Named values give the numbers that they always gave."""

import json
import random

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.core.keyed_random import keyed_generator, seeded_globals


@settings(deadline=None, derandomize=True, max_examples=30)
@given(parts=st.lists(st.text(max_size=9) | st.integers(), max_size=4))
def test_the_stream_is_philoxs_of_the_parts_hash(parts):
    key = xxhash.xxh3_128_intdigest(json.dumps(parts).encode())
    plain = np.random.Generator(np.random.Philox(key=key))
    ours = keyed_generator(*parts)
    assert (ours.random(9) == plain.random(9)).all()
    assert (ours.standard_exponential(9) == plain.standard_exponential(9)).all()


def test_generators_do_not_disturb_each_other():
    first = keyed_generator("mask", 1)
    before = first.random()
    keyed_generator("mask", 1).random(5)
    both = keyed_generator("mask", 1).random(2)
    assert [before, first.random()] == both.tolist()


def draw():
    return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def drawn_inside(*parts):
    with seeded_globals(*parts):
        return draw()


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_global_states_are_seeded_by_the_parts():
    first = drawn_inside("view", 0, "a")
    seed_all(5)
    assert drawn_inside("view", 0, "a") == first
    other = drawn_inside("view", 0, "b")
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_global_states_are_put_back_even_after_an_error():
    seed_all(5)
    undisturbed = draw()
    seed_all(5)
    with pytest.raises(ZeroDivisionError), seeded_globals("view"):
        _ = draw()[0] / 0
    assert draw() == undisturbed
