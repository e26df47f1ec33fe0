"""What a probe that is stopped keeps: answers of the classifiers, and the attentive probe's rate.

The attentive probe comes last and may take hours. What was done before it need not be done again.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.evaluate.probe.features import Labels
from milan_pipeline.evaluate.probe.scoring import Sets
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.provenance.record import StageRecord, config_by_role
from milan_pipeline.stages.probe.command import Probe

NAME = "probe-part.json"
Classified = tuple[dict[str, Labels], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Kept:
    """A file in the folder of the scores until these are written.

    Attributes:
        path: of the file; None keeps nothing.
        key: a hash of all that the findings depend on: those of another one are not used.
    """

    path: Path | None
    key: str

    def read(self, name: str) -> Any:
        """Return what was kept under a name; None if there is nothing."""
        return self._all().get(name)

    def add(self, name: str, value: Any) -> None:
        """Keep a JSON value under a name."""
        if self.path is not None:
            document = {"key": self.key, "found": self._all() | {name: value}}
            storage.put_bytes(str(self.path), json.dumps(document).encode())

    def remove(self) -> None:
        """Remove the file, once the scores are there."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def classified(self, classify: Callable[[], Classified]) -> Classified:
        """Return what classifiers answered, and details: as they are kept, else by `classify`."""
        found = self.read("classified")
        if found is not None:
            answers = {name: np.array(each, np.int64) for name, each in found["answers"].items()}
            return answers, found["details"]
        answers, details = classify()
        lists = {name: labels_N.tolist() for name, labels_N in answers.items()}
        self.add("classified", {"answers": lists, "details": details})
        return answers, details

    def _all(self) -> dict[str, Any]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            document = parsed(storage.read_bytes(str(self.path)), dict[str, Any])
        except DocumentError:
            return {}
        found: dict[str, Any] = document["found"] if document.get("key") == self.key else {}
        return found


def kept_of(config: Probe, record: StageRecord, sets: Sets) -> Kept:
    """Return what is kept of this call; nothing without an attentive probe, or in a store."""
    path = storage.local_path(storage.join(config.folder, NAME)) if config.attentive else None
    document = {
        "content": config_by_role(config)["content"],
        "inputs": dict(record.inputs),
        "images": [len(sets.train.labels_N), len(sets.test.labels_N)],
    }
    return Kept(path, content_hash(document))
