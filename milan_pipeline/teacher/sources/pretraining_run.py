"""A teacher that is the student of an earlier run: `run:FOLDER`, or `run:FILE.safetensors`."""

from typing import Any

import timm

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, MismatchError, MissingDataError
from milan_pipeline.images.statistics import Statistics
from milan_pipeline.images.views import Interpolation
from milan_pipeline.models.weight_files import ENCODER, plain_tensors, read_encoder_description
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, state_of
from milan_pipeline.storage.checksums import read_checked
from milan_pipeline.teacher.sources.timm_model import TimmModel
from milan_pipeline.teacher.spec import RUN, TeacherSpec
from milan_pipeline.teacher.timm_visual import TimmVisual
from milan_pipeline.teacher.weights import require_finite

EXPORTING = ("pretrain", "import-checkpoint")
"""The stages whose runs have an encoder of their own."""


class PretrainingRun(TimmModel):
    """The encoder that a run exported, as its description has timm build it.

    Raises:
        MissingDataError: there is none.
        DataError: its description is damaged.
        MismatchError: the run is not done: what is exported there is that of an earlier end.
    """

    def __init__(self, spec: TeacherSpec) -> None:
        self._spec = spec
        place = spec.name.removeprefix(RUN)
        if not place:
            raise ConfigError(f"--teacher {spec.name!r} names no run; give {RUN}FOLDER")
        is_file = place.endswith(".safetensors")
        self._weights = place if is_file else storage.join(place, ENCODER)
        _require_done(spec.name, storage.folder_of(self._weights))
        url = self._weights.removesuffix(".safetensors") + ".json"
        if not storage.exists(url):
            raise MissingDataError(f"--teacher {spec.name!r}: {_what_it_is(place, url)}")
        self._description = read_encoder_description(url)
        arguments = dict(self._description["timm"])
        model = str(arguments.pop("model_name"))
        if not timm.is_model(model):  # timm would take some such names for places on the network
            raise DataError(
                f"{url} describes {model!r}, which is no model of timm; export it again"
            )
        super().__init__(spec.name, model, arguments)

    def identity(self) -> dict[str, Any]:
        """Return no path, and the licence of the run's own teacher, if that is known."""
        licence = self._description.get("teacher_license")
        named = {"name": self._spec.name_in_identity, "pretrained": None}
        return named | ({"license": licence} if licence else {})

    def statistics(self) -> Statistics:
        """Return those that were asked for, or those that the student was trained with."""
        own = Statistics(*(list(map(float, self._description[key])) for key in ("mean", "std")))
        return self._spec.statistics or own

    def interpolation(self) -> Interpolation:
        """Return what a student's views are resized by."""
        return "bicubic"

    def require_loadable(self) -> None:
        """Refuse nothing: what can be known of a run was asked when it was named."""

    def trained(self, size: int | None) -> TimmVisual:
        """Load the encoder.

        Raises:
            MissingDataError, DataError: its weights are not there, or damaged.
        """
        state = plain_tensors(self._weights, read_checked(self._weights), remedy="export it again")
        visual = self.filled(state, self._weights, size)
        require_finite(visual.trunk, self._weights)
        return visual


def _require_done(name: str, folder: str) -> None:
    state = state_of(folder)
    if state not in (None, "done"):
        raise MismatchError(f"--teacher {name!r}: the run {folder} is {state!r}; finish it first")


def _what_it_is(place: str, url: str) -> str:
    """Say what lies where a run's encoder is missing, and what to give instead."""
    record = read_record(storage.join(place, CONFIG_NAME))
    if record is not None and record["stage"] not in EXPORTING:
        return f"{place} is a run of {record['stage']}; give the run of pretrain that it began with"
    if record is not None:
        return f"{url} does not exist; run {record['stage']} to its end, which writes it"
    run = storage.enclosing(place, ENCODER)
    if run is not None:
        return f"{place} lies in the run {run}; give {RUN}{run}"
    return f"{url} does not exist; give a folder that pretrain or import-checkpoint wrote"
