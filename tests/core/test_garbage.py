"""No search for cycles runs in a block, and it runs again after it, whatever happens there."""

import gc

import pytest

from milan_pipeline.core.garbage import no_search_for_cycles


def test_it_is_off_inside_and_on_again_afterwards() -> None:
    with no_search_for_cycles():
        assert not gc.isenabled()
        with no_search_for_cycles():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), no_search_for_cycles():
        raise KeyError
    assert gc.isenabled()
