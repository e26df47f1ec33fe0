"""Whether the pixels of a mask are numbers of classes, by the first bytes of its PNG."""

BITS, KIND = 24, 25
"""Where a PNG says the bits and the kind of its pixels."""
GREY, PALETTE = 0, 3


def pixel_fault(png: bytes) -> str | None:
    """Say why the pixels of a PNG are not one 8-bit number each, and what helps; None if they are.

    A palette does not matter: its numbers count.

    Args:
        png: the file, or its first bytes, with the whole of its header.

    Returns:
        The end of a sentence that begins with the mask's name.
    """
    kind, bits = png[KIND], png[BITS]
    if kind == PALETTE or (kind == GREY and bits == 8):
        return None
    if kind == GREY:
        return f"has {bits} bits a pixel; save it with 8 bits"
    return (
        "has colours or alpha and not one 8-bit number for each pixel; write class numbers as "
        "grey or palette PNG"
    )
