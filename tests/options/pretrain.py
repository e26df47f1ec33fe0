"""Options of `pretrain`: what is learnt from 24 pictures in four steps."""

from tests.options.kinds import Decides, Differs, Exempt, Place, Same, Table
from tests.options.outcomes import run_folder
from tests.options.training import SLOW, training_entries

SIZES = {
    "student": "vit_tiny_patch16_224", "patch_size": 8, "width": 32, "depth": 2, "heads": 2,
    "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
PIXELS = {"target": "pixels", "targets": None}
SPOILED = PIXELS | {"images": "{spoiled_images}"}
TEACHERS = {"targets": ("clip={targets}", "dino={other_targets}")}
PARTLY = {"targets": "{part_targets}", "batch_size": 4}
FROM_RUN = {"depth": 4, "init": "{trained}"}

PRETRAIN = Table(
    command="pretrain",
    base={
        "images": "{images}", "targets": "{targets}", "out": "{out}", **SIZES,
        "workers": 0, "batch_size": 12, "epochs": 2, "base_lr": 0.02,
    },
    outcome=run_folder,
    entries=training_entries(
        batch_size=Differs(8),
        images=Place("{images_moved}", "{other_images}", given=PIXELS),
        target=Differs("pixels", along={"targets": None}),
        targets=Place("{targets_moved}", "{other_targets}"),
        target_weight=Differs(("dino=3",), given=TEACHERS),
        prior_from=Differs("dino", given=TEACHERS),
        min_scale=Differs(0.9, given=PIXELS),
        init=Place("{trained_moved}", "{other_trained}", given=FROM_RUN),
        student=Differs("deit3_small_patch16_224"),
        image_size=Differs(48, given=PIXELS | {"image_size": 32}),
        patch_size=Differs(4),
        width=Differs(48),
        depth=Differs(1),
        heads=Differs(1),
        decoder=Differs("mae"),
        decoder_width=Differs(16),
        decoder_depth=Differs(2),
        decoder_heads=Differs(1),
        loss=Differs("smooth-l1"),
        target_norm=Differs("layer"),
        resample_targets=Decides(True, given={"image_size": 64}, said="--resample-targets"),
        supervise=Differs("visible"),
        masking=Differs("random"),
        mask_ratio=Differs(0.5),
        views=Differs(1),
        epochs=Differs(3),
        warmup_epochs=Differs(1.0),
        base_lr=Differs(0.01),
        weight_decay=Differs(0.5),
        on_missing=Decides("skip", given=PARTLY, said="on-missing skip"),
        max_bad_fraction=Decides(0.0, given=SPOILED, said="bad-fraction"),
        gradient_checkpointing=Same(True),
        residual_dtype=Differs("bf16", given={"precision": "bf16"}),
        fsdp=Exempt(f"{SLOW}; see tests/end_to_end/test_processes.py"),
    ),
)  # fmt: skip
