"""Options of `probe`: a run's features of pictures that are hard to tell apart."""

from tests.options.kinds import Decides, Differs, Exempt, Place, Same, Table
from tests.options.outcomes import probe_folder

OFFICIAL = {
    "linear": ("official",), "linear_epochs": 4, "linear_warmup_epochs": 1.0, "linear_batch": 8,
    "linear_lr": 30.0,
}  # fmt: skip
PATCHES = {
    "dense": True, "train": "{scenes}/images/training", "val": "{scenes}/images/validation",
    "classes": 3, "reduce_zero_label": True, "memory": 40, "k": (2,),
}  # fmt: skip
ATTENTIVE = {
    "attentive": True, "attentive_epochs": 6, "attentive_batch": 8, "attentive_lr": (0.003,),
    "linear": ("none",),
}  # fmt: skip
SWEEP = {"linear": ("sweep",), "sweep_steps": 6, "sweep_batch": 8, "sweep_lr": (0.1,)}

PROBE = Table(
    command="probe",
    base={
        "encoder": "{trained}", "train": "{other_images}", "val": "{images}", "out": "{out}",
        "k": (5,), "workers": 0,
    },
    outcome=probe_folder,
    entries={
        "encoder": Differs("{other_trained}"),
        "train": Place("{other_images_moved}", "{images}"),
        "val": Place("{images_moved}", "{other_images}"),
        "out": Same("{else}/probe"),
        "label": Same("another name"),
        "features": Same("{else}/features"),
        "pool": Differs("mean"),
        "crop_pct": Differs(0.4),
        "k": Differs((3,)),
        "temperature": Differs(10.0),
        "linear": Differs(("none",)),
        "train_views": Differs(4, given=SWEEP),
        "linear_epochs": Differs(9, given=OFFICIAL),
        "linear_warmup_epochs": Differs(0.0, given=OFFICIAL),
        "linear_batch": Differs(4, given=OFFICIAL),
        "linear_lr": Differs(90.0, given=OFFICIAL),
        "sweep_steps": Differs(40, given=SWEEP),
        "sweep_batch": Differs(2, given=SWEEP),
        "sweep_lr": Differs((0.001,), given=SWEEP),
        "attentive": Differs(True, given={"linear": ("none",)}),
        "attentive_epochs": Differs(2, given=ATTENTIVE),
        "attentive_batch": Differs(4, given=ATTENTIVE),
        "attentive_lr": Differs((0.3,), given=ATTENTIVE),
        "attentive_memory": Same(0.0, given=ATTENTIVE),
        "dense": Decides(True, given=PATCHES, said="--classes changes nothing without --dense"),
        "classes": Decides(3, given=PATCHES, said="give --classes"),
        "ignore_index": Differs(2, given=PATCHES),
        "reduce_zero_label": Decides(True, given=PATCHES, said="none of the 3 classes"),
        "memory": Differs(12, given=PATCHES),
        "random_init": Differs(True),
        "seed": Differs(1, given=OFFICIAL),
        "precision": Exempt(
            "a dozen answers do not hang on last bits; tests/encoders/test_load.py, "
            "tests/stages/probe/test_command.py"
        ),
        "batch_size": Same(5),
        "workers": Same("auto"),
        "device": Same("cpu"),
        "threads": Same(2),
        "max_bad_fraction": Decides(0.0, given={"train": "{spoiled_images}"}, said="bad-fraction"),
        "allow_unfinished": Decides(
            True, given={"encoder": "{unfinished}"}, said="'running'; finish"
        ),
        "overwrite": Decides(True, said="k is", before={"k": (3,)}),
    },
)  # fmt: skip
