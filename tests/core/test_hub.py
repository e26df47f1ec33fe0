"""While a hub is asked, its client's retries are counted and not printed."""

import logging
import socket
import urllib.request

import pytest
from huggingface_hub import constants

from milan_pipeline.core.hub import CLIENT, asking_hub


@pytest.fixture(autouse=True)
def hosts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Answer for a name server: with the error in this list, if there is one."""
    errors: list[int] = []

    def resolve(*_: object) -> list[object]:
        for error in errors:
            raise socket.gaierror(error, "no address")
        return []

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return errors


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


NO_NAME, NO_ANSWER = socket.EAI_NONAME, socket.EAI_AGAIN
KNOWING, ANY = {"https": "http://proxy"}, {"all": "socks5h://proxy"}


@pytest.mark.parametrize(
    ("found", "asks"),
    [
        ((NO_NAME, {}), False),
        ((NO_NAME, KNOWING), True),
        ((NO_NAME, ANY), True),
        ((NO_ANSWER, {}), True),
    ],
)
def test_where_no_network_knows_the_hub_its_cache_alone_is_asked(
    found: tuple[int, dict[str, str]],
    asks: bool,
    hosts: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hosts.append(found[0])
    monkeypatch.setattr(urllib.request, "getproxies", lambda: found[1])
    with asking_hub("ViT-B-16"):
        assert constants.HF_HUB_OFFLINE is not asks
    assert not constants.HF_HUB_OFFLINE
    assert ["in its cache alone" in said for said in caplog.messages] == [True] * (not asks)
