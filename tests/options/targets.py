"""Options of the commands that make, rewrite and check targets."""

from tests.options.kinds import Decides, Differs, Entry, Exempt, Grows, Place, Same, Table
from tests.options.outcomes import document, shards, store

ON_DASK: dict[str, Entry] = {
    "scheduler": Same("{scheduler}", group="Dask"),
    "processes": Exempt(
        "starts Dask's processes, in seconds each; see tests/end_to_end/test_dask_stages.py"
    ),
}
COLOURED = "random-resized-crop:solarise=1"
NAMED = {"teacher": "tiny-of-options", "pretrained": "{clip}/open_clip_model.safetensors"}

EXTRACT = Table(
    command="extract-targets",
    base={
        "images": "{other_images}", "out": "{out}", "teacher": "local-dir:{clip}",
        "precision": "fp32", "views": 2, "workers": 0,
    },
    outcome=store,
    entries=ON_DASK | {
        "images": Place("{other_images_moved}", "{images}"),
        "out": Same("{else}/t.zarr"),
        "teacher": Differs("local-dir:{other_clip}"),
        "pretrained": Differs("{other_clip}/open_clip_model.safetensors", given=NAMED),
        "views": Grows(1),
        "view_policy": Differs("center", given={"views": 1}),
        "view_seed": Differs(1),
        "teacher_sees": Differs("clean", given={"view_policy": COLOURED}),
        "views_from": Place("{seeded_moved}", "{other_store}", given={"views_from": "{seeded}"}),
        "min_scale": Differs(0.9),
        "codec": Differs("int8"),
        "precision": Differs("bf16"),
        "teacher_norm": Differs("imagenet"),
        "grid": Differs(2),
        "layers": Differs(2),
        "space": Differs("hidden"),
        "prior": Differs("uniform"),
        "compile": Exempt("compiling takes a minute, and changes no more than last bits"),
        "device": Same("cpu"),
        "threads": Same(2),
        "devices": Same("cpu", group="devices"),
        "batch_size": Same(3),
        "workers": Same(2),
        "max_bad_fraction": Decides(0.0, given={"images": "{spoiled_images}"}, said="bad-fraction"),
        "overwrite": Decides(True, said="view_policy.seed", before={"view_seed": 1}),
        "init": Grows(True),
        "part": Grows("1/2"),
    },
)  # fmt: skip

TRANSCODE = Table(
    command="transcode",
    base={"source": "{store}", "out": "{out}", "codec": "int8", "workers": 0},
    outcome=store,
    entries=ON_DASK | {
        "source": Place("{store_moved}", "{other_store}"),
        "out": Same("{else}/t.zarr"),
        "codec": Differs("bfloat16"),
        "views": Grows(1),
        "device": Same("cpu"),
        "threads": Same(2),
        "workers": Same(2),
        "allow_unfinished": Decides(True, given={"source": "{part_store}"}, said="is not finished"),
        "overwrite": Decides(True, said="codec", before={"codec": "bfloat16"}),
    },
)  # fmt: skip

PACK_TARGETS = Table(
    command="pack-targets",
    base={"targets": "{store}", "out": "{out}", "workers": 0},
    outcome=shards,
    entries=ON_DASK | {
        "targets": Place("{store_moved}", "{other_store}"),
        "out": Same("{else}/shards"),
        "views": Grows(1),
        "codec": Differs("int8"),
        "phi_s": Grows(None, given={"phi_s": True}),
        "device": Same("cpu"),
        "threads": Same(2),
        "workers": Same(2),
        "allow_unfinished": Decides(True, given={"targets": "{part_store}"}, said="not finished"),
        "overwrite": Decides(True, said="codec", before={"codec": "int8"}),
    },
)  # fmt: skip

VERIFY = Table(
    command="verify",
    base={"store": "{store}", "sample": 4, "workers": 0},
    outcome=document(),
    entries=ON_DASK | {
        "store": Place("{store_moved}", "{other_store}"),
        "images": (Same("{images_moved}"), Decides("{other_images}", said="not sound")),
        "teacher": (
            Same("local-dir:{clip_moved}"), Decides("local-dir:{other_clip}", said="weights_sha256")
        ),
        "pretrained": Decides(
            "{other_clip}/open_clip_model.safetensors", said="weights_sha256",
            given={"store": "{named_store}"},
        ),
        "sample": Differs(2),
        "min_cosine": Decides(1.0, given={"store": "{int8_store}"}, said="not sound"),
        "seed": Differs(1),
        "device": Same("cpu"),
        "threads": Same(2),
        "workers": Same(2),
        "repair": Decides(True, given={"store": "{damaged_store}"}, said="not sound"),
    },
)  # fmt: skip

STATUS = Table(
    command="status",
    base={"folder": "{store}"},
    outcome=document("path", "processes", "images_per_second_on_average"),
    entries={"folder": Place("{store_moved}", "{part_store}")},
)

CODECS = Table(
    command="codecs",
    base={"store": "{store}", "codec": ("int8",), "plot": "{out}/codecs.png"},
    outcome=document("encode_per_s", "decode_per_s"),
    entries={
        "store": Place("{store_moved}", "{other_store}"),
        "codec": Differs(("bfloat16",)),
        "samples": Differs(5),
        "synthetic": Differs(0.5, given={"synthetic": 1.0}),
        "plot": Same("{else}/picture.png"),
        "device": Same("cpu"),
        "threads": Same(2),
        "allow_unfinished": Decides(True, given={"store": "{part_store}"}, said="is not finished"),
    },
)
