"""Options of the commands that turn files into other files: images into shards, weights."""

from tests.options.kinds import Decides, Differs, Place, Same, Table
from tests.options.outcomes import exported, imported, index_folder, shards

SCENES = {"source": "{scenes}/images/training", "masks": "{scenes}/annotations/training"}

TABLE = {"source": "{table}", "image_folder": "{pictures}"}

PACK_IMAGES = Table(
    command="pack-images",
    base={"source": "{pictures}", "dest": "{out}", "samples_per_shard": 10, "workers": 0},
    outcome=shards,
    entries={
        "source": Place("{pictures_moved}", "{other_pictures}"),
        "dest": Same("{else}/shards"),
        "masks": Place(
            "{scenes_moved}/annotations/training", "{other_scenes}/annotations/training",
            given=SCENES,
        ),
        "image_column": Differs("other", given=TABLE),
        "label_column": Differs("none", given=TABLE),
        "caption_column": Differs("none", given=TABLE),
        "image_folder": Place("{pictures_moved}", "{other_pictures}", given=TABLE),
        "exif": Differs("apply", given={"source": "{photos}"}),
        "prefix": Differs("photos"),
        "samples_per_shard": Differs(7),
        "even_shards": Differs(True),
        "shuffle": Differs(False),
        "seed": Differs(1),
        "workers": Same(2),
        "max_bad_fraction": Decides(
            0.0, given={"source": "{broken_pictures}"}, said="bad-fraction"
        ),
        "overwrite": Decides(True, said="seed is", before={"seed": 1}),
    },
)  # fmt: skip

TARS = tuple(f"/images-00000{number}.tar" for number in range(3))

INDEX = Table(
    command="index",
    base={"urls": tuple(f"{{images}}{tar}" for tar in TARS), "out": "{out}", "workers": 0},
    outcome=index_folder,
    entries={
        "urls": Place(
            tuple(f"{{images_moved}}{tar}" for tar in TARS),
            tuple(f"{{other_images}}{tar}" for tar in TARS),
        ),
        "out": Same("{else}/index"),
        "image_field": Decides("input.jpg", said="holds no image"),
        "max_bad_fraction": Decides(
            0.0, given={"urls": ("{tar_without_an_image}",)}, said="bad-fraction"
        ),
        "workers": Same(2),
        "overwrite": Same(True),
    },
)

EXPORT = Table(
    command="export",
    base={"run": "{trained}", "form": "timm", "out": "{out}"},
    outcome=exported,
    entries={
        "run": Place("{trained_moved}", "{other_trained}"),
        "form": Differs("huggingface"),
        "out": Same("{else}/export"),
        "ema": Differs(True),
        "threads": Same(2),
        "allow_unfinished": Decides(True, given={"run": "{unfinished}"}, said="'running'"),
        "overwrite": Decides(True, said="ema is", before={"ema": True}),
    },
)

IMPORT = Table(
    command="import-checkpoint",
    base={"checkpoint": "{official}", "out": "{out}", "heads": 4, "decoder_heads": 4},
    outcome=imported,
    entries={
        "checkpoint": Place("{official_moved}", "{other_official}"),
        "out": Same("{else}/run"),
        "student": Decides("deit3_base_patch16_224", said="lacks blocks.0.ls1"),
        "heads": Differs(2),
        "decoder_heads": Differs(2),
        "mask_ratio": Differs(0.5),
        "mean": Differs((0.1, 0.2, 0.3)),
        "std": Differs((0.1, 0.2, 0.3)),
    },
)
