"""Options of the commands that tell something, and of the one that writes jobs."""

from tests.options.kinds import Decides, Differs, Exempt, Place, Same, Table
from tests.options.outcomes import document, page, scripts

MEASURED = {"teacher_rate": None, "measure": True, "measure_batch": (2,), "measure_seconds": 0.0}

NAMED = {"teacher": "tiny-of-options", "pretrained": "openai"}

PLAN = Table(
    command="plan",
    base={
        "samples": 1000, "teacher": "local-dir:{clip}", "precision": "fp32",
        "student_rate": 1000.0, "teacher_rate": 100.0, "read_bandwidth": 1e6,
    },
    outcome=document("free_bytes"),
    entries={
        "images": Differs("{images}", along={"samples": None}),
        "samples": Differs(2000),
        "samples_per_shard": Differs(10),
        "image_bytes": Differs(1000),
        "teacher": Differs("local-dir:{wide_clip}"),
        "pretrained": Differs("another", given=NAMED),
        "precision": Differs("bf16"),
        "teacher_norm": Differs("imagenet"),
        "grid": Differs(2),
        "layers": Decides(3, said="--layers 3"),
        "space": Differs("hidden"),
        "prior": Differs("uniform"),
        "views": Differs(2),
        "codec": Differs("int8"),
        "epochs": Differs(10),
        "students": Differs(2),
        "devices": Differs(2),
        "student": Differs("vit_tiny_patch16_224"),
        "student_rate": Differs(500.0),
        "teacher_rate": Differs(50.0),
        "read_bandwidth": Differs(2e6),
        "put_price": Differs(0.01),
        "get_price": Differs(0.001),
        "out": Differs("{out}"),
        "measure": Differs(False, given=MEASURED),
        "measure_batch": Differs((3,), given=MEASURED),
        "measure_seconds": Exempt("timing longer makes a rate surer, and no other by design"),
        "device": Same("cpu"),
        "threads": Exempt("last bits depend on it, and so do the bytes that compressed codes take"),
    },
)  # fmt: skip

COMPARE = Table(
    command="compare",
    base={"folders": ("{results}",)},
    outcome=document("folder", "do_not_differ"),  # which names folders, too
    entries={
        "folders": Place(("{results_moved}",), ("{results}/a",)),
        "out": Same("{out}/table.md"),
        "over_seeds": Differs(True),
        "hashes": Same(True),
    },
)

RECIPES = Table(
    command="recipes",
    base={"name": "{recipe}"},
    outcome=document("name"),
    entries={"name": Place("{recipe_moved}", "{other_recipe}")},
)

DOCTOR = Table(
    command="doctor",
    base={"folder": "{out}", "hub": False},
    outcome=document("state"),
    entries={
        "folder": Exempt("a disk takes another time each time; tests/stages/doctor show it"),
        "hub": Exempt("tests have no network; tests/stages/doctor show that the row is left out"),
        "device": Exempt("times differ each time"),
    },
)

OF_A_RUN = {"paths": ("{trained}",), "gallery": 1}

PREDICTING = OF_A_RUN | {"targets": "{targets}"}

INSPECT = Table(
    command="inspect",
    base={"paths": ("{store}",), "html": "{out}/page.html", "images": "{images}", "gallery": 2},
    outcome=page,
    entries={
        "paths": Place(("{store_moved}",), ("{other_store}",)),
        "html": Same("{else}/page.html"),
        "images": Place("{images_moved}", None),
        "targets": (
            Same("{targets_moved}", given=PREDICTING),
            Decides("{other_targets}", given=PREDICTING, said="trained on other targets"),
        ),
        "originals": Place(
            "{store_moved}", None, given={"paths": ("{int8_store}",), "originals": "{store}"}
        ),
        "results": Place(("{results_moved}",), (), given=OF_A_RUN | {"results": ("{results}",)}),
        "gallery": Differs(1),
        "seed": Differs(1),
        "threads": Same(2),
    },
)

SUBMIT = Table(
    command="submit",
    base={"recipe": "{recipe}", "images": "{images}", "out": "{out}", "val": "{images}"},
    outcome=scripts,
    entries={
        "recipe": Place("{recipe_moved}", "{other_recipe}"),
        "images": Differs("{other_images}"),
        "out": Differs("{else}/jobs"),
        "val": Differs("{other_images}"),
        "targets": Differs("{else}/t.zarr"),
        "target_shards": Differs("{else}/shards"),
        "parts": Differs(2),
        "nodes": Differs(2),
        "gpus": Differs(2),
        "processes_per_node": Differs(4),
        "cpus_per_task": Differs(4),
        "account": Differs("someone"),
        "partition": Differs("large"),
        "time": Differs("1:00:00"),
        "sbatch": Differs(("--qos=low",)),
        "container": Differs("apptainer exec image"),
        "setup": Differs(("module load cuda",)),
    },
)
