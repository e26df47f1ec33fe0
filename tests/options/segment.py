"""Options of `segment`: a run's encoder on six painted images, four steps of three."""

from tests.options.kinds import Decides, Differs, Place, Same, Table
from tests.options.outcomes import run_folder
from tests.options.training import training_entries

SCORED = {"encoder": "{segmenter}/segmenter.safetensors", "eval_only": True}
"""Training itself depends on it: BatchNorm takes the statistics of a forward pass."""
BY_EPOCHS = {"steps": None, "epochs": 2}

SEGMENT = Table(
    command="segment",
    base={
        "encoder": "{trained}", "train": "{scenes}/images/training",
        "val": "{scenes}/images/validation", "out": "{out}", "workers": 0, "batch_size": 3,
        "steps": 4, "eval_every": 2, "base_lr": 0.02, "image_size": 32, "classes": 3,
        "reduce_zero_label": True, "channels": 8,
    },
    outcome=run_folder,
    entries=training_entries(
        batch_size=Differs(2),
        lanes=Differs(3),
        micro_batch=Same(2, given=SCORED),
        encoder=Differs("{other_trained}"),
        train=Place("{scenes_moved}/images/training", "{other_scenes}/images/training"),
        val=Place("{scenes_moved}/images/validation", "{other_scenes}/images/validation"),
        eval_only=Differs(False, given=SCORED),
        label=Same("another name"),
        label_fraction=Differs(0.5),
        check=Same("sample"),
        random_init=Differs(True),
        allow_unfinished=Decides(True, given={"encoder": "{unfinished}"}, said="'running'; finish"),
        classes=Differs(4),
        class_names=Place("{names_moved}", "{other_names}", given={"class_names": "{names}"}),
        ignore_index=Differs(2),
        reduce_zero_label=Differs(False, given={"classes": 4}),
        head=Differs("linear"),
        channels=Differs(12),
        freeze=Differs(True),
        image_size=Differs(40),
        short_side=Differs(24),
        long_side=Differs(36),
        least_scale=Differs(0.9),
        most_scale=Differs(1.1),
        max_class_share=Differs(0.2),
        photometric=Differs(False),
        drop_path=Differs(0.5),
        epochs=Differs(3, given=BY_EPOCHS | {"max_steps": 3}),
        steps=Differs(5, given={"max_steps": 3}),
        warmup_steps=Differs(2),
        schedule=Differs("cosine"),
        base_lr=Differs(0.01),
        min_lr=Differs(1e-3),
        layer_decay=Differs(0.9),
        weight_decay=Differs(0.5),
        evaluate=Differs("whole"),
        stride=Differs(8),
        multi_scale=Differs(True),
        eval_every=Differs(4),
        max_bad_fraction=Decides(
            0.0, given={"train": "{spoiled_scenes}/images/training"}, said="bad-fraction"
        ),
        gradient_checkpointing=Same(True),
    ),
)  # fmt: skip
