"""Steps of other students and teachers, computed from the measured ones by multiply-adds."""

import statistics

VISIBLE, MASKED, TARGET_WIDTH = 50, 147, 512
ENCODERS = {"S": (384, 12), "B": (768, 12), "L": (1024, 24)}
DECODER_WIDTH, DECODER_DEPTH, MLP_RATIO = 512, 8, 4
PASSES = 3  # forward, and backward to activations and to weights
PATCH_VALUES = 16 * 16 * 3


def step_multiply_adds(width: int, depth: int) -> float:
    """Return the multiply-adds of one image's training step in our student.

    Args:
        width: of the encoder.
        depth: of the encoder.
    """
    tokens, all_tokens = VISIBLE, VISIBLE + MASKED
    block = tokens * (4 + 2 * MLP_RATIO) * width**2 + 2 * tokens**2 * width
    encoder = depth * block + tokens * PATCH_VALUES * width
    c = DECODER_WIDTH
    updated = MASKED * (2 + 2 * MLP_RATIO) * c**2
    decoder_block = updated + all_tokens * 2 * c**2 + 2 * MASKED * all_tokens * c
    decoder = DECODER_DEPTH * decoder_block + tokens * width * c + all_tokens * c * TARGET_WIDTH
    return float(PASSES * (encoder + decoder))


STEP_MULTIPLY_ADDS = {name: step_multiply_adds(*sizes) for name, sizes in ENCODERS.items()}


def table(fp32: dict[str, list[float]], large: dict[str, list[float]], batch: int) -> str:
    """Lay out images/s and ratios of S, B and L students with B/16 and L/14 teachers, in fp32.

    The B student and both teachers were measured. The S and L students are computed, ours and the
    plain ones, from the rate of multiply-adds that the B student's step reached.
    """
    lines = [
        "\nimages/s in fp32; S and L students computed from B's rate of multiply-adds",
        f"{'student':8} {'teacher':9} {'ours':>7} {'plain':>7} {'ratio':>6}",
    ]
    teachers = {"B/16": statistics.median(fp32["teacher"]), "L/14": _median(large, "teacher")}
    reading = max(0.0, _median(fp32, "ours whole") - _median(fp32, "ours student"))
    for student, work in STEP_MULTIPLY_ADDS.items():
        scale = work / STEP_MULTIPLY_ADDS["B"]
        ours = _median(fp32, "ours student") * scale + reading
        for teacher, seconds in teachers.items():
            plain = _median(fp32, "plain student") * scale + reading + seconds
            lines.append(
                f"{student:8} {teacher:9} {batch / ours:7.2f} {batch / plain:7.2f} "
                f"{plain / ours:6.2f}"
            )
    return "\n".join(lines)


def _median(times: dict[str, list[float]], name: str) -> float:
    return statistics.median(times[name])
