"""While a hub is asked, its client's retries are counted and not printed."""

import logging

import pytest

from milan_pipeline.core.hub import CLIENT, asking_hub


def test_retries_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = logging.getLogger(CLIENT)
    with asking_hub("ViT-B-16"):
        for _ in range(5):
            client.warning("'away' thrown while requesting HEAD https://hub/x")
            client.warning("Retrying in 1s [Retry 1/5].")
        client.error("it is broken")
        logging.error("Failed to download weights for tag 'openai'")  # noqa: LOG015
    assert caplog.messages == [
        "it is broken", "The hub did not answer, and was asked again 5 times",
    ]  # fmt: skip
    client.warning("as ever")
    assert caplog.messages[-1] == "as ever"


def test_a_hub_that_answers_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with asking_hub("ViT-B-16"):
        pass
    assert caplog.messages == []
