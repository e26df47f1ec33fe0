"""Re-encoding rows: what other ways of asking, or plain encoding, would give."""

from typing import Any

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fitting import fit_codec, fit_steps
from milan_pipeline.codecs.interface import Codec, encode_prior
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.targets.transcoding import ROWS_AT_ONCE, Recoder, fitted_codec, new_codec
from tests.support.stores import make_block, unit_with

CPU = torch.device("cpu")
NAMES = ("codes", "scale", "prior")
ROWS = 2 * ROWS_AT_ONCE + 5


class StoppedWhenAskedTwice(StopRequest):
    """A stop that comes between two questions for it."""

    asked = 0

    def raise_if_asked(self, what_is_kept: str) -> None:
        self.asked += 1
        self.signal_name = "SIGTERM" if self.asked == 2 else None
        super().raise_if_asked(what_is_kept)


def test_a_stop_during_the_fit_is_heard_after_a_step() -> None:
    spec, stop = parse_codec("joint:bytes=4").for_width(6), StoppedWhenAskedTwice()
    assert fit_steps(spec) > 2
    tokens_nND = torch.from_numpy(make_block(9).codes).float()
    with pytest.raises(InterruptedRunError, match="SIGTERM received; nothing is fitted yet"):
        fitted_codec(spec, tokens_nND, stop)
    assert stop.asked == 2


def arrays_by(codec: str) -> dict[str, Any]:
    """A unit's arrays by name."""
    arrays = vars(make_block(ROWS, codec=codec))
    return {name: arrays[name] for name in NAMES if arrays[name] is not None}


@pytest.fixture(scope="module")
def joint() -> Codec:
    tokens = torch.from_numpy(make_block(9).codes).float()
    return fit_codec(parse_codec("joint:bytes=3"), tokens)


@pytest.mark.parametrize("source", ["float16", "int8"])
def test_rows_are_encoded_as_by_hand(source: str, joint: Codec) -> None:
    own, arrays = make_codec(source), arrays_by(source)
    scale = torch.from_numpy(arrays["scale"]) if source == "int8" else None
    tokens = own.decode(torch.from_numpy(arrays["codes"]), scale)
    for target in (joint, make_codec("bfloat16"), make_codec("int8")):
        found = Recoder(source=own, target=target, device=CPU)(unit_with(arrays), range(ROWS))
        codes, new_scale = target.encode(tokens)
        assert np.array_equal(found["codes"], codes.numpy())
        assert found["codes"].dtype == target.spec.dtype
        assert ("scale" in found) == (new_scale is not None)
        if new_scale is not None:
            assert np.array_equal(found["scale"], new_scale.numpy())
    prior = arrays["prior"]
    assert np.array_equal(found["prior"], prior)
    coded = Recoder(source=own, target=joint, device=CPU)(unit_with(arrays), range(ROWS))["prior"]
    assert np.array_equal(coded, encode_prior(torch.from_numpy(prior)).numpy())


def test_what_cannot_be_encoded_is_refused() -> None:
    arrays = arrays_by("bfloat16")
    arrays["codes"][ROWS - 1, 0, 0] = 0x7E00  # 4e37, as bfloat16
    recoder = Recoder(source=make_codec("bfloat16"), target=make_codec("float16"), device=CPU)
    recoder(unit_with(arrays), range(ROWS - 1))
    with pytest.raises(DataError, match="not finite or too large for --codec float16"):
        recoder(unit_with(arrays), range(ROWS))


def test_without_a_target_there_is_nothing_to_fit_to() -> None:
    spec, own = parse_codec("joint:bytes=3"), make_codec("float16")
    with pytest.raises(DataError, match=r"t\.zarr has no target in its first view"):
        new_codec("t.zarr", [], own, spec, StopRequest())
    assert new_codec("t.zarr", [], own, parse_codec("int8"), StopRequest()).parameters() == {
        "name": "int8"
    }
