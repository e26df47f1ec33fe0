"""The names that MILAN's official code gives the student's parameters."""

from collections.abc import Mapping

from torch import Tensor

from milan_pipeline.errors import MismatchError
from milan_pipeline.student import Student


def official_name(name: str) -> str:
    """Return what the official MILAN code calls a parameter of `Student`."""
    part, _, rest = name.partition(".")
    return rest if part == "encoder" or rest == "mask_token" else f"decoder_{rest}"


def load_official(student: Student, state: Mapping[str, Tensor]) -> None:
    """Load weights under official names into `student`, all of them and no others, unchanged.

    Raises:
        MismatchError: a name is missing or unknown, or a shape differs.
    """
    ours = {official_name(name): tensor for name, tensor in student.state_dict().items()}
    differing = sorted(ours.keys() ^ state.keys()) or sorted(
        name for name in ours if ours[name].shape != state[name].shape
    )
    if differing:
        raise MismatchError(
            f"the official state and the student differ in {len(differing)} parameters, the first "
            f"being {differing[0]!r}; build the student with the sizes of the state"
        )
    student.load_state_dict({name: state[official_name(name)] for name in student.state_dict()})
