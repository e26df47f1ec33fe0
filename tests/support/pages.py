"""A page as a test sees it: its elements and texts, by the standard library's parser."""

import base64
import hashlib
from html.parser import HTMLParser
from typing import NamedTuple

VOID = {"meta", "link", "img", "br", "input", "use", "path"}


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str]


class ReadPage(HTMLParser):
    """Elements in order, and the text of each tag's elements together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [found.attributes for found in self.elements if found.tag == tag]

    def values(self, name: str) -> list[str]:
        return [found.attributes[name] for found in self.elements if name in found.attributes]

    @property
    def tags(self) -> set[str]:
        return {found.tag for found in self.elements}


def require_self_contained(text: str) -> ReadPage:
    """Check what holds of every page: no loading, no script but its own, names of pictures."""
    page = ReadPage(text)
    for place in page.values("src") + page.values("href") + page.values("xlink:href"):
        assert place.startswith(("data:", "#")), place
    assert "url(http" not in text
    assert "@import" not in text
    anchors = {
        place[1:] for place in page.values("href") + page.values("xlink:href") if place[:1] == "#"
    }
    identifiers = page.values("id")
    assert len(set(identifiers)) == len(identifiers)
    assert anchors <= set(identifiers)
    assert all("alt" in attributes for attributes in page.all("img"))
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [
        name for found in page.elements for name in found.attributes if name.startswith("on")
    ]
    return page
