"""How many of what, in words: one image, two images."""


def counted(number: int, things: str) -> str:
    """Return "1 image", "2 images", "1 unit done now".

    Args:
        number: how many; others than integers are no 1.
        things: what, in the plural; the first word is what is counted.
    """
    return f"{number} {singular(things) if number == 1 else things}"


def singular(things: str) -> str:
    """Return the singular of the first word: a regular plural loses its ending."""
    word, space, rest = things.partition(" ")
    if word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("ies"):
        word = f"{word[:-3]}y"
    elif word.endswith("s"):
        word = word[:-1]
    return f"{word}{space}{rest}"


def has(number: int) -> str:
    """Return the verb of so many."""
    return "has" if number == 1 else "have"


def are(number: int) -> str:
    """Return the verb of so many."""
    return "is" if number == 1 else "are"


def such(number: int, things: str, what: str) -> str:
    """Return "1 unit is done", "2 units are done"."""
    return f"{counted(number, things)} {are(number)} {what}"
