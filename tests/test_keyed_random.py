"""Named values give the numbers that they always gave."""

import json

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.keyed_random import keyed_generator


@settings(deadline=None, derandomize=True)
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
