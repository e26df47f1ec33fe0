"""A student is built from its description alone, for a grid that is the targets'."""

import dataclasses
import math

import pytest
import torch

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.models.baseline_decoders import DECODERS
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.pretraining.defaults import MILANS
from tests.support.runs import open_data
from tests.support.students import TINY_SPEC


def build(grid=(4, 4), **changes):
    return build_student(
        dataclasses.replace(TINY_SPEC, **changes), grid=grid, target_width=6, seed=3
    )


def test_a_student_is_a_function_of_its_description_and_seed():
    before = torch.random.get_rng_state()
    first, again = build()[0], build()[0]
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    other = build_student(TINY_SPEC, grid=(4, 4), target_width=6, seed=4)[0]
    name = "encoder.cls_token"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_decoder_and_its_tokens_are_those_described(decoder):
    student, _ = build(decoder=decoder, supervise="masked")
    assert type(student.decoder).__name__.lower() == f"{decoder}decoder"
    assert student.supervise == "masked"
    assert student.decoder.pred.out_features == 6


@pytest.mark.parametrize(
    ("sizes", "grid", "image"),
    [
        ({"patch_size": 8}, (4, 4), 32),  # whatever fits the targets
        ({"patch_size": 8, "image_size": 48}, (6, 6), 48),
        ({"patch_size": None}, (14, 14), 224),  # the name's own
        ({"patch_size": None, "image_size": 64}, (4, 4), 64),
    ],
)
def test_the_image_size_is_given_or_fits_or_is_the_names(sizes, grid, image):
    student, arguments = build(grid, **sizes)
    assert arguments["img_size"] == image
    assert student.encoder.patch_embed.grid_size == grid


@pytest.mark.parametrize(
    ("sizes", "grid", "message"),
    [
        (
            {"patch_size": None},
            (16, 16),
            "14x14 grid, the targets have 16x16; give --image-size 256, or targets of a 14x14 grid",
        ),
        (
            {"patch_size": None, "name": "vit_huge_patch14_224"},
            (14, 14),
            "16x16 grid, the targets have 14x14; give --image-size 196, or targets of a 16x16 grid",
        ),
        ({"image_size": 64}, (4, 4), r"has a 8x8 grid.*give --image-size 32, or .* a 8x8 grid"),
        ({"image_size": 36}, (4, 4), r"--image-size 36 is no multiple .* 8 pixels; give 32"),
        ({"image_size": 3}, (4, 4), r"--image-size 3 is no multiple .* 8 pixels; give 8"),
    ],
)
def test_a_grid_that_is_not_the_targets_is_refused_with_what_would_fit(sizes, grid, message):
    with pytest.raises(ConfigError, match=message):
        build(grid, **sizes)


def test_targets_of_an_oblong_grid_are_refused():
    with pytest.raises(MismatchError, match="the targets have a 4x6 grid; take square ones"):
        build((4, 6))


def test_a_record_describes_the_student_and_what_it_lacks_is_milans():
    content = {"student": "vit_tiny_patch16_224", "patch_size": 8, "loss": "cosine", "views": 2}
    spec = StudentSpec.from_content(content)
    assert spec == StudentSpec(name="vit_tiny_patch16_224", patch_size=8)
    assert (spec.decoder, spec.supervise, spec.image_size) == ("prompting", "all", None)
    whole = dataclasses.asdict(TINY_SPEC)
    assert StudentSpec.from_content(whole | {"student": whole.pop("name")}) == TINY_SPEC


def test_options_of_pretrain_describe_the_whole_student():
    from milan_pipeline.stages.pretrain.command import Pretrain

    options = {field.name for field in dataclasses.fields(Pretrain)}
    spec = {field.name for field in dataclasses.fields(StudentSpec)} - {"name"}
    assert spec <= options
    defaults = {f.name: f.default for f in dataclasses.fields(Pretrain)} | MILANS
    for field in dataclasses.fields(StudentSpec):
        if field.name != "name":
            assert field.default == defaults[field.name]


def test_the_published_student_has_the_published_size():
    student, _ = build_student(
        StudentSpec(name="vit_base_patch16_224", depth=1, decoder_depth=1),
        grid=(14, 14),
        target_width=512,
        seed=0,
    )
    block = 12 * 768**2 + 13 * 768
    encoder = 197 * 768 + 768 + (3 * 16**2 + 1) * 768 + block + 2 * 768
    prompted = 12 * 512**2 + 13 * 512
    decoder = 197 * 512 + 512 + 769 * 512 + prompted + 2 * 512 + 513 * 512
    assert sum(math.prod(p.shape) for p in student.parameters()) == encoder + decoder


def test_the_licence_is_that_of_all_teachers(image_shards, target_shards):
    data = open_data(image_shards, target_shards)
    assert data.licence is None
    (one,) = data.teachers

    def under(licence):
        teacher = one.identity["teacher"] | {"license": licence}
        return dataclasses.replace(one, identity=one.identity | {"teacher": teacher})

    several = (under("cc-by-nc-4.0"), under("mit"), under("mit"))
    licensed = dataclasses.replace(data, teachers=several)
    assert licensed.licence == "cc-by-nc-4.0 and mit"
    assert dataclasses.replace(data, teachers=(*several, one)).licence is None
