"""Options of `finetune`: a run's encoder on a dozen pictures, four steps of three pictures."""

from tests.options.kinds import Decides, Differs, Place, Same, Table
from tests.options.outcomes import run_folder
from tests.options.training import training_entries

UNMIXED = {"mixup": 0.0, "cutmix": 0.0, "erasing": 0.0, "drop_path": 0.0, "base_lr": 1e-3}
"""What is drawn for a forward pass depends on which images are in it."""

FINETUNE = Table(
    command="finetune",
    base={
        "encoder": "{trained}", "train": "{other_images}", "val": "{images}", "out": "{out}",
        "workers": 0, "batch_size": 6, "epochs": 2, "base_lr": 0.02,
    },
    outcome=run_folder,
    entries=training_entries(
        encoder=Differs("{other_trained}"),
        train=Place("{other_images_moved}", "{images}"),
        val=Place("{images_moved}", "{other_images}"),
        eval_only=Differs(True, given={"encoder": "{classifier}/finetuned.safetensors"}),
        label=Same("another name"),
        label_fraction=Differs(0.5),
        check=Same("sample"),
        random_init=Differs(True),
        allow_unfinished=Decides(True, given={"encoder": "{unfinished}"}, said="'running'; finish"),
        micro_batch=Same(2, given=UNMIXED, within=1e-5),
        image_size=Differs(48),
        pool=Differs("cls"),
        crop_pct=Differs(0.1, given={"seed": 3}),
        drop_path=Differs(0.5),
        epochs=Differs(3, given={"max_steps": 3}),
        least_steps=Differs(5, given={"max_steps": 3}),
        warmup_epochs=Differs(1.0),
        base_lr=Differs(0.01),
        min_lr=Differs(1e-3),
        layer_decay=Differs(0.9),
        min_scale=Differs(0.8),
        weight_decay=Differs(0.5),
        augment=Differs(""),
        smoothing=Differs(0.3),
        mixup=Differs(0.1),
        cutmix=Differs(0.0),
        erasing=Differs(1.0),
        eval_every=Differs(2),
        max_bad_fraction=Decides(0.0, given={"train": "{spoiled_images}"}, said="bad-fraction"),
        gradient_checkpointing=Same(True),
    ),
)  # fmt: skip
