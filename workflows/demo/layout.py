"""What is in a scene, before it is painted or described."""

from typing import NamedTuple


class Thing(NamedTuple):
    """One object; centre and scale (half its side) are fractions of the image side."""

    name: str
    colour: str
    texture: str
    centre: tuple[float, float]
    scale: float


class Layout(NamedTuple):
    """What is in a scene, before it is painted."""

    main: Thing
    others: list[Thing]
    in_front: int  # the first so many others lie over the main object, the rest behind it
    backdrop: str
    backdrop_colours: tuple[str, str]
