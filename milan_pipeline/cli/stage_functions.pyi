"""Every stage as a function; made of the commands' options by `make reference`."""

import os
from typing import Literal

from milan_pipeline.cli.run_stage import StageResult

StrPath = str | os.PathLike[str]


def pack_images(
    source: StrPath,
    dest: StrPath,
    *,
    masks: StrPath | None = None,
    image_column: StrPath | None = None,
    label_column: StrPath | None = None,
    caption_column: StrPath | None = None,
    image_folder: StrPath | None = None,
    exif: Literal["ignore", "apply"] = 'ignore',
    prefix: StrPath = 'images',
    samples_per_shard: int = 1000,
    even_shards: bool = False,
    shuffle: bool = True,
    seed: int = 0,
    workers: int = 2,
    max_bad_fraction: float = 0.01,
    overwrite: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Pack images into shards (WebDataset tars). Only --exif apply changes bytes of images.

    SOURCE is a folder with one sub-folder for each class, a flat folder, a list or a table. A list
    has one path in each line, and after a tab optionally a class number or name. A table is a CSV,
    TSV, JSON lines or Parquet file, a folder of Parquet files, or what Hugging Face datasets saved
    or img2dataset downloaded. DEST is the folder for the shards and manifest.json.

    Args:
        source: SOURCE of the command line.
        dest: DEST of the command line.
        masks: Folder with a mask for each image. A mask has its image's path, but ends in
            .png. It is packed as .mask.png; default: none.
        image_column: Column of a table with the images or their paths; default: path, image
            or another such name.
        label_column: Column with the classes, by number or name, or none; default: label,
            class or another such name.
        caption_column: Column with texts that are packed as .txt, or none; default: caption
            or text.
        image_folder: Folder that the paths in a table are below; default: the table's own.
        exif: Whether images are turned as their EXIF says. Images that are turned get new
            bytes.
        prefix: Beginning of the shards' names.
        samples_per_shard: Images in each shard.
        even_shards: Divide the images evenly: counts of shards differ by one at most.
        shuffle: Shuffle the files before packing.
        seed: Seed of the shuffle.
        workers: Threads. Each writes one shard at a time.
        max_bad_fraction: Largest share of images that may be unreadable; above 0, ten are
            always allowed.
        overwrite: Write all shards again, even if they were made with other options.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def index(
    *urls: StrPath,
    out: StrPath | None = None,
    image_field: StrPath | None = None,
    max_bad_fraction: float = 0.01,
    workers: int = 2,
    overwrite: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Make image shards of WebDataset tars that you have: write an index of each and a manifest.

    URLS are tar files; `{000..127}` and `{a,b}` are expanded. Each tar is read once. The tars do
    not change and stay where they are.

    Args:
        urls: URLS of the command line.
        out: Folder for the manifest and indices; default: that of the tars.
        image_field: Extension of each sample's image: everything after the first dot, such
            as input.jpg; default: jpg, jpeg, png or webp.
        max_bad_fraction: Largest share of samples that may have no image. Ten are always
            allowed, unless this is 0.
        workers: Threads. Each reads one tar at a time.
        overwrite: Index tars again that the manifest lists.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def plan(
    *,
    teacher: str,
    pretrained: str | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = 'auto',
    teacher_norm: str = 'own',
    grid: int | None = None,
    layers: int = 1,
    space: Literal["auto", "projected", "hidden"] = 'auto',
    prior: Literal["auto", "cls", "pool", "rollout", "uniform"] = 'auto',
    images: StrPath | None = None,
    samples: int | None = None,
    samples_per_shard: int = 1000,
    image_bytes: int = 110000,
    views: int = 1,
    codec: str = 'float16',
    epochs: int = 400,
    students: int = 1,
    devices: int = 1,
    student: str = 'vit_base_patch16_224',
    student_rate: float | None = None,
    teacher_rate: float | None = None,
    read_bandwidth: float | None = None,
    put_price: float = 0.005,
    get_price: float = 0.0004,
    out: StrPath | None = None,
    measure: bool = False,
    measure_batch: int | list[int] | tuple[int, ...] = (),
    measure_seconds: float = 2.0,
    device: str = 'auto',
    threads: int | Literal["auto"] = 'auto',
    config: StrPath | None = None,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Estimate bytes and hours before anything is written, and say whether a store pays.

    Prints the bytes of the target store and of the target shards, the bandwidth that pretraining
    needs, the teacher's hours, and after how many epochs the store pays. With a recipe (--config),
    teacher, views, codec and epochs are those of the recipe.

    Args:
        teacher: The model: a CLIP of open_clip (ViT-B-16), hf-hub:ORG/REPO or
            local-dir:PATH; a model of timm, as timm:NAME.TAG; or run:FOLDER, the student of
            a run.
        pretrained: Weights of the teacher: a tag (openai) or a file; default: those of
            --teacher.
        precision: Number type of the teacher's weights; auto: bf16 if the device has it,
            else fp32.
        teacher_norm: Mean and std of the teacher's pixels. own: those that its weights were
            trained with. imagenet: as in MILAN. openai: those of OpenAI's CLIP. Or numbers
            for pixels from 0 to 1: 0.5/0.5, or 0.48,0.46,0.41/0.27,0.26,0.28.
        grid: Patches along each side of an image; this sets the teacher's input size.
            Teacher and student need the same grid; default: the teacher's own.
        layers: Targets are the mean of this many of the last layers.
        space: Take targets after (projected) or before (hidden) CLIP's last projection;
            auto: after it, if there is one.
        prior: Attention that gives the mask prior; auto: the one that the teacher pools
            with, or that of its CLS token.
        images: Folder of image shards with manifest.json; default: none, see --samples.
        samples: Number of images, if there are no shards yet; default: the number in
            --images.
        samples_per_shard: Images in a shard, with --samples.
        image_bytes: Bytes of an image (110kB), with --samples.
        views: Number of views (crops) of each image.
        codec: How targets are stored: float16, bfloat16, int8, high, compact or tiny. The
            last three are 12, 24 and 60 times smaller than float16. For other sizes:
            joint:ratio=X (X times smaller than float16) or joint:bytes=N (bytes for each
            token). cosine:X is the smallest size that keeps a mean cosine of X; plan and
            --dry-run count it like int8 until it is fitted. rotation:bits=N needs no fit (1
            to 4 bits for each component).
        epochs: Epochs of each student's pretraining.
        students: Number of students that are pretrained from the targets.
        devices: Number of devices that train one student.
        student: The student; without --student-rate, steps of this default alone are
            compared with the teacher's.
        student_rate: Images/s of a student's training without a teacher, on all its
            devices; default: unknown.
        teacher_rate: Images/s of the teacher on one device; default: unknown, or measured
            by --measure.
        read_bandwidth: Bytes/s that the storage delivers (2GB); default: enough.
        put_price: US dollars for 1,000 PUT or LIST requests to an object store; the default
            is that of S3 in us-east-1 (2026).
        get_price: US dollars for 1,000 GET requests; the default is also that of S3.
        out: Folder for store and shards; its free space is compared with their bytes;
            default: no comparison.
        measure: Time the teacher on this machine, with random weights; nothing is
            downloaded.
        measure_batch: Batch size to time; may be repeated; default: two that suit the
            device.
        measure_seconds: Seconds of timing for each batch size.
        device: Where the teacher runs: auto, cpu, cuda.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def extract_targets(
    *,
    scheduler: str | None = None,
    processes: int | None = None,
    threads: int | Literal["auto"] = 'auto',
    teacher: str,
    pretrained: str | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = 'auto',
    teacher_norm: str = 'own',
    grid: int | None = None,
    layers: int = 1,
    space: Literal["auto", "projected", "hidden"] = 'auto',
    prior: Literal["auto", "cls", "pool", "rollout", "uniform"] = 'auto',
    images: StrPath,
    out: StrPath,
    views: int | None = None,
    view_policy: str = 'random-resized-crop',
    teacher_sees: Literal["view", "clean"] = 'view',
    views_from: str | None = None,
    view_seed: int = 0,
    min_scale: float = 0.2,
    codec: str = 'float16',
    compile: bool = False,
    device: str = 'auto',
    devices: str | None = None,
    batch_size: int | Literal["auto"] = 64,
    workers: int = 2,
    max_bad_fraction: float = 0.01,
    overwrite: bool = False,
    init: bool = False,
    part: str | None = None,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Run CLIP on views of all images, once, and store its patch features and mask priors.

    If the command is killed or stopped, run it again: finished units are kept. With more --views,
    or with changed or added shards, only what is missing is done. On many machines, use --part K/N
    for job arrays, or --scheduler or --processes for Dask; `milan-pipeline status` shows progress.

    Args:
        scheduler: Address of a Dask scheduler. Its workers do the units; default: none.
        processes: Number of Dask processes on this machine, which share its GPUs or cores;
            default: none, this process does the units.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number. Workers of --scheduler
            keep their own.
        teacher: The model: a CLIP of open_clip (ViT-B-16), hf-hub:ORG/REPO or
            local-dir:PATH; a model of timm, as timm:NAME.TAG; or run:FOLDER, the student of
            a run.
        pretrained: Weights of the teacher: a tag (openai) or a file; default: those of
            --teacher.
        precision: Number type of the teacher's weights; auto: bf16 if the device has it,
            else fp32.
        teacher_norm: Mean and std of the teacher's pixels. own: those that its weights were
            trained with. imagenet: as in MILAN. openai: those of OpenAI's CLIP. Or numbers
            for pixels from 0 to 1: 0.5/0.5, or 0.48,0.46,0.41/0.27,0.26,0.28.
        grid: Patches along each side of an image; this sets the teacher's input size.
            Teacher and student need the same grid; default: the teacher's own.
        layers: Targets are the mean of this many of the last layers.
        space: Take targets after (projected) or before (hidden) CLIP's last projection;
            auto: after it, if there is one.
        prior: Attention that gives the mask prior; auto: the one that the teacher pools
            with, or that of its CLS token.
        images: Folder of image shards with manifest.json.
        out: Target store to write, e.g. targets.zarr.
        views: Number of views (crops) of each image; default: 1, with --views-from as many
            as there.
        view_policy: How a view is cut from its image: random-resized-crop or center.
            Changes of colours may follow, each with its probability: DINO's are
            random-resized-crop:jitter=0.8,grey=0.2,blur=0.5,solarise=0.2.
        teacher_sees: What the teacher sees where views have changes of colours: the view,
            or a clean one without them. The student always sees them.
        views_from: Target store or shards of another teacher whose view options and number
            of views are taken, so that one student can learn from both; default: those
            given here.
        view_seed: Seed of the crops.
        min_scale: Smallest share of an image's area that a crop covers.
        codec: How targets are stored: float16, bfloat16, int8, high, compact or tiny. The
            last three are 12, 24 and 60 times smaller than float16. For other sizes:
            joint:ratio=X (X times smaller than float16) or joint:bytes=N (bytes for each
            token). cosine:X is the smallest size that keeps a mean cosine of X; plan and
            --dry-run count it like int8 until it is fitted. rotation:bits=N needs no fit (1
            to 4 bits for each component).
        compile: Compile the teacher's blocks with torch. This changes the last bits of
            targets.
        device: Where the teacher runs: auto, cpu, cuda.
        devices: Start one process on each of these devices: all (GPUs that torch sees), or
            names such as cuda:0,cuda:2. They share the units; default: one process, on
            --device.
        batch_size: Images in a batch of the teacher. auto: the number of an earlier run
            into --out, else a fast one that is found on the GPU, else 64. With --devices,
            it is found on the first of them, so give devices that are alike.
        workers: Threads that decode images, in each process.
        max_bad_fraction: Largest share of images that may be unreadable; above 0, one is
            always allowed. With --part or --devices, it is the share of a part's images.
            The part that does the last unit checks all images.
        overwrite: Replace targets that were made with other options.
        init: Create the store and its record, and stop. The parts of a job array then share
            it.
        part: K/N, with 0 <= K < N: do only the units K, K+N, K+2N and so on. To run some
            parts again, give the same N; default: all units.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def status(
    folder: StrPath,
    *,
    config: StrPath | None = None,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Say how far FOLDER is: what is done and left, the speed, the time left, and who is at work.

    FOLDER is a target store, shards, a run, the scores of a probe, an export, or a local folder
    with any of these below it. Paths and URLs will do. Nothing is written.

    The state is one of six. Nothing is left to do: done. A process is at work: running. The last
    one stopped as asked: interrupted. It ended with an error: failed. It ended without a word:
    dead. There is work left that no process has begun: left. A process of this machine is looked
    up. One of another machine counts as dead if nothing was heard of it for five minutes. Below a
    folder, an output that is damaged or closed to you is shown as unreadable, with the reason.

    Args:
        folder: FOLDER of the command line.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def verify(
    store: StrPath,
    *,
    scheduler: str | None = None,
    processes: int | None = None,
    threads: int | Literal["auto"] = 'auto',
    images: StrPath | None = None,
    teacher: str | None = None,
    pretrained: str | None = None,
    sample: int = 64,
    min_cosine: float = 0.99,
    seed: int = 0,
    device: str = 'auto',
    workers: int = 2,
    repair: bool = False,
    config: StrPath | None = None,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Say whether STORE, a target store, is sound: read all of it, and run CLIP again on a sample.

    If units are damaged, the exit code is 1 and the units are named; --repair extracts only those
    again. Images, teacher and weights are those of the store's record, unless you give others. A
    transcoded store cannot be repaired: run transcode again. With --scheduler or --processes, Dask
    workers check the units; the teacher runs in this process.

    Args:
        store: STORE of the command line.
        scheduler: Address of a Dask scheduler. Its workers do the units; default: none.
        processes: Number of Dask processes on this machine, which share its GPUs or cores;
            default: none, this process does the units.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number. Workers of --scheduler
            keep their own.
        images: Folder of the image shards, if they have moved; default: as recorded.
        teacher: Name or folder of the teacher, if it has moved; default: as recorded.
        pretrained: Weights tag or checkpoint file, if it has moved; default: as recorded.
        sample: Number of targets that the teacher computes again, for comparison; 0: none.
        min_cosine: Smallest cosine between a stored token and the same token computed
            again. A fitted codec (high, joint, …) may be off by its own error and by this
            angle.
        seed: Seed of the sample.
        device: Where the teacher runs: auto, cpu, cuda.
        workers: Threads. Each checks one unit at a time.
        repair: Extract damaged units again.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def measure_codecs(
    store: StrPath,
    *,
    codec: str | list[str] | tuple[str, ...] = (),
    samples: int = 1024,
    synthetic: float | None = None,
    plot: StrPath = 'codecs.png',
    device: str = 'auto',
    threads: int | Literal["auto"] = 'auto',
    allow_unfinished: bool = False,
    config: StrPath | None = None,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Measure on the targets of STORE how small each codec is and how much it keeps.

    Codecs are fitted to the same images as in extraction, and measured on others. The command
    prints a table and draws a picture. It does not change the store.

    Columns: bytes of a token and of a sample. Times smaller than float16, for a sample, for target
    shards and for a store. Cosine between a token and its decoded code: mean, first percentile and
    mean of class tokens. Agreement of PCA colours, 1 for equal pictures. Bits of a component above
    the Gaussian rate-distortion bound. Images/s.

    Args:
        store: STORE of the command line.
        codec: Codec to measure; may be repeated; default: all levels and a range of ratios.
        samples: Number of images to measure on.
        synthetic: Also measure Gaussian tokens of the same shape. Their k-th component has
            the variance k^-POWER; default: no such tokens.
        plot: File for the picture (PNG).
        device: Where targets are encoded and decoded: auto, cpu, cuda.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        allow_unfinished: Measure a store whose extraction is not finished.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def transcode(
    source: StrPath,
    out: StrPath,
    *,
    scheduler: str | None = None,
    processes: int | None = None,
    threads: int | Literal["auto"] = 'auto',
    codec: str,
    views: int | None = None,
    device: str = 'auto',
    workers: int = 2,
    allow_unfinished: bool = False,
    overwrite: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Write the targets of the store SOURCE into a new store OUT with another codec, without CLIP.

    A codec that needs fitting is fitted to a sample of the images and stored in OUT. If the command
    is killed or stopped, run it again: finished units are kept. With --scheduler or --processes,
    Dask workers do the units.

    Args:
        source: SOURCE of the command line.
        out: OUT of the command line.
        scheduler: Address of a Dask scheduler. Its workers do the units; default: none.
        processes: Number of Dask processes on this machine, which share its GPUs or cores;
            default: none, this process does the units.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number. Workers of --scheduler
            keep their own.
        codec: How targets are stored: float16, bfloat16, int8, high, compact or tiny. The
            last three are 12, 24 and 60 times smaller than float16. For other sizes:
            joint:ratio=X (X times smaller than float16) or joint:bytes=N (bytes for each
            token). cosine:X is the smallest size that keeps a mean cosine of X; plan and
            --dry-run count it like int8 until it is fitted. rotation:bits=N needs no fit (1
            to 4 bits for each component).
        views: Views to transcode; default: all.
        device: Where targets are decoded and encoded: auto, cpu, cuda.
        workers: Threads. Each does one unit at a time.
        allow_unfinished: Take the finished units of a store whose extraction is not
            finished.
        overwrite: Replace targets of another codec or source, and fit the codec again.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def pack_targets(
    *,
    scheduler: str | None = None,
    processes: int | None = None,
    threads: int | Literal["auto"] = 'auto',
    targets: StrPath,
    out: StrPath,
    views: int | None = None,
    codec: str | None = None,
    phi_s: bool = False,
    device: str = 'auto',
    workers: int = 2,
    allow_unfinished: bool = False,
    overwrite: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Copy a target store into target shards, which training reads: a tar for each shard and view.

    The same store gives the same bytes. If the command is killed, run it again: listed shards are
    kept. With --scheduler or --processes, Dask workers write the shards.

    Args:
        scheduler: Address of a Dask scheduler. Its workers do the units; default: none.
        processes: Number of Dask processes on this machine, which share its GPUs or cores;
            default: none, this process does the units.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number. Workers of --scheduler
            keep their own.
        targets: Target store.
        out: Folder for the shards and manifest.json.
        views: Views to pack; default: all.
        codec: Re-encode targets: float16, bfloat16, int8, high, compact or tiny. The last
            three are 12, 24 and 60 times smaller than float16. For other sizes:
            joint:ratio=X (X times smaller than float16) or joint:bytes=N (bytes for each
            token). cosine:X is the smallest size that keeps a mean cosine of X; plan and
            --dry-run count it like int8 until it is fitted. rotation:bits=N needs no fit (1
            to 4 bits for each component); default: as they are stored.
        phi_s: Also fit PHI-S to a sample of the targets, for `pretrain --target-norm
            phi-s`. Shards that are there are kept.
        device: Where --codec decodes and encodes: auto, cpu, cuda.
        workers: Threads. Each writes one shard at a time.
        allow_unfinished: Pack the finished units of a store whose extraction is not
            finished.
        overwrite: Write all shards again, even if they hold other targets.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def import_checkpoint(
    checkpoint: StrPath,
    *,
    out: StrPath,
    student: str | None = None,
    heads: int | None = None,
    decoder_heads: int | None = None,
    mask_ratio: float = 0.75,
    mean: float | list[float] | tuple[float, ...] = (0.485, 0.456, 0.406),
    std: float | list[float] | tuple[float, ...] = (0.229, 0.224, 0.225),
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Make a run of a checkpoint of MILAN's official code, to probe, export or train it further.

    CHECKPOINT is a .safetensors, .pth, .pt or .bin file with the official names. It may hold only
    the encoder, for everything that needs no decoder. Sizes come from the tensors. Positions do
    not change.

    Args:
        checkpoint: CHECKPOINT of the command line.
        out: Run folder to write.
        student: timm name of the student; default: the model with these sizes, else
            ViT-B/16.
        heads: Number of the encoder's attention heads; default: that of the timm model,
            else width / 64.
        decoder_heads: Number of the decoder's attention heads; default: 16.
        mask_ratio: Share of the patches that were masked in its training. It is only
            recorded.
        mean: Mean of the pixels that it was trained on, from 0 to 1. Give it three times:
            for red, green and blue.
        std: Standard deviation of these pixels, three times.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def pretrain(
    *,
    out: StrPath,
    batch_size: int | None = None,
    clip_grad: float | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
    lanes: int | None = None,
    shuffle_block: int = 4096,
    precision: Literal["auto", "fp32", "bf16"] = 'auto',
    max_steps: int | None = None,
    micro_batch: int = 256,
    compile: bool = False,
    gradient_checkpointing: bool = False,
    checkpoint_every: int = 500,
    keep: int = 2,
    log_every: int = 10,
    wandb: str | None = None,
    workers: int | Literal["auto"] = 2,
    max_bad_fraction: float = 0.01,
    cache: str | None = None,
    cache_gb: float = 50.0,
    processes: int | None = None,
    device: str = 'auto',
    threads: int | Literal["auto"] = 'auto',
    images: StrPath,
    target: Literal["features", "pixels"] = 'features',
    targets: StrPath | list[StrPath] | tuple[StrPath, ...] = (),
    target_weight: str | list[str] | tuple[str, ...] = (),
    prior_from: str | None = None,
    min_scale: float | None = None,
    init: str | None = None,
    student: str = 'vit_base_patch16_224',
    image_size: int | None = None,
    patch_size: int | None = None,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    decoder: Literal["prompting", "mae", "linear"] | None = None,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    loss: Literal["cosine", "smooth-l1", "mse"] | None = None,
    target_norm: Literal["l2", "layer", "none", "phi-s"] | None = None,
    resample_targets: bool = False,
    supervise: Literal["all", "masked", "visible"] | None = None,
    masking: Literal["semantic", "random", "block"] | None = None,
    mask_ratio: float = 0.75,
    views: int | None = None,
    epochs: int = 400,
    warmup_epochs: float | None = None,
    base_lr: float = 0.00015,
    weight_decay: float = 0.05,
    on_missing: Literal["error", "skip"] = 'error',
    residual_dtype: Literal["fp32", "bf16"] = 'fp32',
    fsdp: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Train a student to predict stored targets of masked patches (MILAN). No teacher runs.

    If the command is killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run it again: it continues from
    the newest checkpoint. On CPUs it ends with the same weights.

    Args:
        out: Run folder to write.
        batch_size: Samples in a batch of all processes; default: the published number, or
            less for small data.
        clip_grad: Largest norm of the gradients (arXiv 1211.5063); default: no clipping.
        ema_decay: Decay of a moving average of the weights (arXiv 1703.01780), which is
            kept and exported beside them. It is at most 1 - t^(-2/3) at step t, as in
            timm's ModelEmaV3; default: no average.
        seed: Seed of the first weights, of the order and of all random draws.
        lanes: Number of lanes: equal sequences into which an epoch is divided. Loader
            processes of a process share its lanes equally; default: up to 64, or 8 for each
            process if there are more than 8.
        shuffle_block: Number of samples of a lane that are shuffled together.
        precision: Number type of the arithmetic; auto: bf16 on a GPU that has it, else
            fp32.
        max_steps: Stop after this many steps; default: at the end of the schedule.
        micro_batch: Samples in one forward pass of one process. Gradients of a batch are
            added up. A smaller number takes less memory.
        compile: Compile the model's blocks with torch.
        gradient_checkpointing: Save memory: compute the blocks again in the backward pass.
        checkpoint_every: Steps between checkpoints.
        keep: Number of checkpoints to keep.
        log_every: Steps between rows in the log.
        wandb: Project of Weights & Biases that gets the log, beside TensorBoard's files in
            --out. Without a network set WANDB_MODE=offline; default: none.
        workers: Loader processes of each training process; auto: one for each core that it
            may use.
        max_bad_fraction: Largest share of images that may be unreadable; above 0, one is
            always allowed. With --target pixels, other images take their place. Images with
            targets must all be readable.
        cache: Local folder that keeps data read from remote shards; default: none.
        cache_gb: Largest size of --cache, in gigabytes.
        processes: Number of training processes to start on this machine, if torchrun does
            not start them; default: one.
        device: Where to train: auto, cpu, cuda.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        images: Folder of image shards with manifest.json.
        target: What the student predicts: a teacher's features, or pixels of masked patches
            (MAE, arXiv 2111.06377). Pixels need no teacher and no --targets.
        targets: Folder of target shards with manifest.json. To learn from several teachers,
            repeat it with a name for each: clip=FOLDER, dino=FOLDER. Each has a head of its
            own; views and, without --resample-targets, the grid must be the same. Only
            --target pixels needs none; default: none.
        target_weight: Weight of a teacher's loss, with its name in --targets: dino=0.5; may
            be repeated. The loss is the weighted mean; default: 1 each.
        prior_from: The teacher whose attention chooses patches, by its name in --targets,
            for --masking semantic; default: the first of --targets.
        min_scale: Smallest share of an image's area in a view, for --target pixels. For
            features, extract-targets has set it; default: 0.2.
        init: Run to begin from, or its encoder.safetensors alone; default: random weights.
        student: The student: timm's name of a ViT with a class token.
        image_size: Side of the student's view, in pixels; default: that of --student, or
            with --patch-size the one that fits the targets' grid.
        patch_size: Side of the student's patches, in pixels; default: that of --student.
        width: Width of the student; default: that of --student.
        depth: Number of the student's blocks; default: that of --student.
        heads: Number of the student's attention heads; default: that of --student.
        decoder: prompting: mask tokens attend to visible ones (MILAN). mae: attention over
            all tokens (arXiv 2111.06377). linear: a linear head, and mask tokens enter the
            encoder (SimMIM, arXiv 2111.09886; EVA, 2211.07636); default: prompting, for
            pixels mae.
        decoder_width: Width of the decoder; not for linear.
        decoder_depth: Number of the decoder's blocks; not for linear.
        decoder_heads: Number of the decoder's attention heads; not for linear.
        loss: cosine: 2 - 2 cos (MILAN). smooth-l1: with beta 2, between the prediction and
            the normalised target (arXiv 2205.14141). mse: squared error (MAE); default:
            cosine, for pixels mse.
        target_norm: l2: targets of length 1 (MILAN). layer: targets after a layer norm
            (arXiv 2205.14141, 2210.10615). none: targets as they are stored, for smooth-l1
            and mse. phi-s: rotated and scaled, so that no teacher counts more by the size
            of its values (arXiv 2410.01680); needs pack-targets --phi-s; default: l2, for
            pixels layer.
        resample_targets: Resample targets of another grid than the student's: bilinear,
            with antialiasing where they get fewer; CLS stays. Else they are refused.
        supervise: Tokens that the loss counts: all (MILAN), masked patches (MAE, arXiv
            2111.06377), or CLS and visible patches (MaskAlign, arXiv 2211.08887); default:
            all, for pixels masked.
        masking: How patches are chosen. semantic: those that CLIP attends to are kept more
            often (MILAN). random: all alike (MAE, arXiv 2111.06377). block: masked in
            blocks (BEiT, arXiv 2106.08254); default: semantic, for pixels random.
        mask_ratio: Share of the patches that are masked.
        views: Number of views to use; default: all that are packed.
        epochs: Passes over the images. This sets the length of the schedule.
        warmup_epochs: Epochs of warm-up, in which the learning rate rises; default: a tenth
            of --epochs.
        base_lr: Learning rate for a batch of 256. It is scaled to --batch-size.
        weight_decay: AdamW's weight decay.
        on_missing: What to do with images without targets, and targets without images:
            stop, or leave them out.
        residual_dtype: Number type of the tokens between blocks, for --precision bf16. bf16
            needs less memory and bandwidth, and rounds more.
        fsdp: Divide the student among the processes (FSDP2).
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def probe(
    *,
    encoder: str,
    train: StrPath,
    val: StrPath,
    out: StrPath | None = None,
    label: StrPath | None = None,
    features: StrPath | None = None,
    pool: Literal["cls", "mean", "both"] = 'cls',
    crop_pct: float | None = None,
    k: int | list[int] | tuple[int, ...] = (),
    temperature: float | None = None,
    linear: Literal["logistic", "official", "sweep", "none"] | list[Literal["logistic", "official", "sweep", "none"]] | tuple[Literal["logistic", "official", "sweep", "none"], ...] = ('logistic',),
    train_views: int = 1,
    linear_epochs: int = 100,
    linear_warmup_epochs: float = 10.0,
    linear_batch: int | None = None,
    linear_lr: float | None = None,
    sweep_steps: int = 12500,
    sweep_batch: int = 1024,
    sweep_lr: float | list[float] | tuple[float, ...] = (1e-05, 2e-05, 5e-05, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
    attentive: bool = False,
    attentive_epochs: int = 20,
    attentive_batch: int | None = None,
    attentive_lr: float | list[float] | tuple[float, ...] = (0.0001, 0.0003, 0.001, 0.003, 0.01),
    attentive_memory: float = 4.0,
    dense: bool = False,
    classes: int | None = None,
    ignore_index: int = 255,
    reduce_zero_label: bool = False,
    memory: int = 100000,
    random_init: bool = False,
    seed: int = 0,
    precision: Literal["auto", "fp32", "bf16"] = 'fp32',
    batch_size: int = 64,
    workers: int | Literal["auto"] = 2,
    device: str = 'auto',
    threads: int | Literal["auto"] = 'auto',
    max_bad_fraction: float = 0.01,
    allow_unfinished: bool = False,
    overwrite: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Score a frozen encoder: accuracy of k-NN and of linear classifiers on its features.

    Both sets of shards need class numbers (.cls). The command prints a table and writes scores.json
    and answers.npy, which has the class and the answers for each test image; images.txt names
    these. Features are computed once and kept.

    With --dense, patches are scored instead of images. Both sets need masks, as for segment. Each
    patch takes its class from the labelled patches that are most like it, and the command writes
    the mIoU and its protocol.

    Args:
        encoder: The encoder: a run folder, a .safetensors with its .json, a timm name,
            open_clip:MODEL/TAG, or pixels.
        train: Folder of labelled image shards to learn from; with --dense, images and masks
            as segment takes them.
        val: Folder of the same kind to score on, which is held out from --train.
        out: Folder for scores.json; default: probe/ in the run folder, with --dense
            probe-dense/.
        label: Name of the encoder in tables; default: --encoder.
        features: Folder that keeps the features; several probes may share it; default:
            features/ in --out.
        pool: Tokens that make the feature: the class token, the mean of the patches, or
            both.
        crop_pct: Share of the resized image's side that is shown, from its middle; finetune
            shows the same; default: 0.875 up to 224 pixels, else 1.
        k: Number of neighbours that vote; may be repeated for several scores; default: 10,
            20, 100 and 200, with --dense 30 alone.
        temperature: Temperature of the neighbours' votes; default: 0.07, with --dense 0.02.
        linear: Linear classifier; may be repeated. logistic: logistic regression. official:
            MILAN's protocol with LARS. sweep: DINOv2's, many rates for each pool.
        train_views: Views of each image that official and sweep use in turn. 1: the view
            that is scored. More: random crops and flips.
        linear_epochs: For official: epochs.
        linear_warmup_epochs: For official: epochs of warm-up.
        linear_batch: For official: batch, to which --linear-lr is scaled; default: 16384.
            For sets smaller than ImageNet, a 78th of the set, with the rate of 16384.
        linear_lr: For official: learning rate for a batch of 256; default: 0.05, or 0.02
            for 1024 features and more.
        sweep_steps: For sweep: steps.
        sweep_batch: For sweep: batch.
        sweep_lr: For sweep: a learning rate to try, for a batch of 256; may be repeated.
        attentive: Also train an attentive probe: one query attends to all patches, and a
            linear layer classifies what it takes (arXiv 2401.08541). Its rate is chosen on
            a tenth of --train.
        attentive_epochs: For --attentive: epochs.
        attentive_batch: For --attentive: batch; default: 1024, or a 78th of a set smaller
            than 80,000 images (at least 16).
        attentive_lr: For --attentive: a learning rate of AdamW to try; may be repeated.
        attentive_memory: For --attentive: largest memory for patch features. A --train that
            needs more is encoded again in each epoch, and so twice where rates are tried.
        dense: Score patches by the classes of the nearest labelled patches (mIoU).
        classes: For --dense: number of classes in the masks, which it needs; default: none.
        ignore_index: For --dense: value of mask pixels that do not count.
        reduce_zero_label: For --dense: mask pixels with 0 do not count, and 1 is the first
            class.
        memory: For --dense: labelled patches that are kept to look up, evenly of all
            images.
        random_init: Give the encoder random weights: the score to beat.
        seed: Seed of --random-init, of views, of linear and attentive classifiers and of
            the patches that are kept.
        precision: Type of the encoder's arithmetic; auto: bf16 on a GPU that has it, else
            fp32.
        batch_size: Images in a batch of the encoder.
        workers: Threads that decode images; auto: one for each core that the command may
            use.
        device: Where to compute: auto, cpu, cuda.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        max_bad_fraction: Largest share of images that may be unreadable; above 0, one is
            always allowed.
        allow_unfinished: Score a run that is not finished.
        overwrite: Replace scores that were made with other options.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def finetune(
    *,
    out: StrPath,
    batch_size: int | None = None,
    clip_grad: float | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
    lanes: int | None = None,
    shuffle_block: int = 4096,
    precision: Literal["auto", "fp32", "bf16"] = 'auto',
    max_steps: int | None = None,
    micro_batch: int = 256,
    compile: bool = False,
    gradient_checkpointing: bool = False,
    checkpoint_every: int = 500,
    keep: int = 2,
    log_every: int = 10,
    wandb: str | None = None,
    workers: int | Literal["auto"] = 2,
    max_bad_fraction: float = 0.01,
    cache: str | None = None,
    cache_gb: float = 50.0,
    processes: int | None = None,
    device: str = 'auto',
    threads: int | Literal["auto"] = 'auto',
    encoder: str,
    train: StrPath | None = None,
    val: StrPath,
    eval_only: bool = False,
    label: str | None = None,
    label_fraction: float = 1.0,
    check: Literal["all", "sample"] | None = None,
    random_init: bool = False,
    layer_decay: float = 0.65,
    allow_unfinished: bool = False,
    image_size: int | None = None,
    pool: Literal["mean", "cls"] = 'mean',
    crop_pct: float | None = None,
    drop_path: float = 0.1,
    epochs: int = 100,
    least_steps: int | None = None,
    warmup_epochs: float | None = None,
    base_lr: float = 0.0001,
    min_lr: float = 1e-06,
    weight_decay: float = 0.05,
    augment: str = 'rand-m9-mstd0.5-inc1',
    min_scale: float = 0.08,
    smoothing: float = 0.1,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    erasing: float = 0.25,
    eval_every: int = 1,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Train an encoder and a classifier on labelled images by MILAN's recipe, and score them.

    The defaults are those of a ViT-B. For a ViT-L give --layer-decay 0.75 --drop-path 0.2. If the
    command is killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run it again: it continues from the
    newest checkpoint. On CPUs it ends with the same weights.

    Args:
        out: Run folder to write.
        batch_size: Samples in a batch of all processes; default: the published number, or
            less for small data.
        clip_grad: Largest norm of the gradients (arXiv 1211.5063); default: no clipping.
        ema_decay: Decay of a moving average of the weights (arXiv 1703.01780), which is
            kept and exported beside them. It is at most 1 - t^(-2/3) at step t, as in
            timm's ModelEmaV3; default: no average.
        seed: Seed of the first weights, of the order and of all random draws.
        lanes: Number of lanes: equal sequences into which an epoch is divided. Loader
            processes of a process share its lanes equally; default: up to 64, or 8 for each
            process if there are more than 8.
        shuffle_block: Number of samples of a lane that are shuffled together.
        precision: Number type of the arithmetic; auto: bf16 on a GPU that has it, else
            fp32.
        max_steps: Stop after this many steps; default: at the end of the schedule.
        micro_batch: Samples in one forward pass of one process. Gradients of a batch are
            added up. A smaller number takes less memory.
        compile: Compile the model's blocks with torch.
        gradient_checkpointing: Save memory: compute the blocks again in the backward pass.
        checkpoint_every: Steps between checkpoints.
        keep: Number of checkpoints to keep.
        log_every: Steps between rows in the log.
        wandb: Project of Weights & Biases that gets the log, beside TensorBoard's files in
            --out. Without a network set WANDB_MODE=offline; default: none.
        workers: Loader processes of each training process; auto: one for each core that it
            may use.
        max_bad_fraction: Largest share of images that may be unreadable; above 0, one is
            always allowed. Other images take their place.
        cache: Local folder that keeps data read from remote shards; default: none.
        cache_gb: Largest size of --cache, in gigabytes.
        processes: Number of training processes to start on this machine, if torchrun does
            not start them; default: one.
        device: Where to train: auto, cpu, cuda.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        encoder: The encoder: a run folder, a .safetensors with its .json, a timm name (with
            a tag: pretrained), or open_clip:MODEL/TAG.
        train: Labelled images to train on: a folder of shards or of class folders. Only
            --eval-only needs none; default: none.
        val: Labelled images to score on: a folder of shards or of class folders.
        eval_only: Do not train: score the model in --encoder, a .safetensors file of this
            stage.
        label: Name of the encoder in tables; default: --encoder.
        label_fraction: Share of the training images to use. With classes: this share of
            each class, at least one image.
        check: Check masks and images to score on before the first step: all, or 1,000 of
            each set; default: all, with --dry-run none.
        random_init: Give the encoder random weights: a baseline.
        layer_decay: Factor of a layer's learning rate for each layer that comes after it.
        allow_unfinished: Start from a run that is not finished.
        image_size: Side of the views, in pixels; default: that of the encoder.
        pool: What the classifier sees: the mean of the patches, or the class token.
        crop_pct: Share of the resized image's side that is scored, from its middle;
            default: 0.875 up to 224 pixels, else 1.
        drop_path: Rate of stochastic depth (arXiv 1603.09382).
        epochs: Passes over the images. This sets the length of the schedule.
        least_steps: Steps that the schedule has at least: for few images --epochs, warm-up
            and --eval-every are multiplied by the smallest whole number that does; default:
            none.
        warmup_epochs: Epochs of warm-up, in which the learning rate rises; default: 5, or a
            tenth of --epochs if that is less.
        base_lr: Learning rate for a batch of 256. It is scaled to --batch-size.
        min_lr: Learning rate at the end.
        weight_decay: AdamW's weight decay.
        augment: Augmentation, by timm's name (RandAugment, arXiv 1909.13719); '' for none.
        min_scale: Smallest share of an image's area in a training view. Give more if the
            objects are small.
        smoothing: Label smoothing.
        mixup: Alpha of mixup (arXiv 1710.09412); 0 for none.
        cutmix: Alpha of CutMix (arXiv 1905.04899); 0 for none.
        erasing: Share of the images that lose a random box (arXiv 1708.04896).
        eval_every: Epochs between evaluations.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def segment(
    *,
    out: StrPath,
    batch_size: int | None = None,
    clip_grad: float | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
    lanes: int | None = None,
    shuffle_block: int = 4096,
    precision: Literal["auto", "fp32", "bf16"] = 'auto',
    max_steps: int | None = None,
    micro_batch: int = 256,
    compile: bool = False,
    gradient_checkpointing: bool = False,
    checkpoint_every: int = 500,
    keep: int = 2,
    log_every: int = 10,
    wandb: str | None = None,
    workers: int | Literal["auto"] = 2,
    max_bad_fraction: float = 0.01,
    cache: str | None = None,
    cache_gb: float = 50.0,
    processes: int | None = None,
    device: str = 'auto',
    threads: int | Literal["auto"] = 'auto',
    encoder: str,
    train: StrPath | None = None,
    val: StrPath,
    eval_only: bool = False,
    label: str | None = None,
    label_fraction: float = 1.0,
    check: Literal["all", "sample"] | None = None,
    random_init: bool = False,
    layer_decay: float = 0.65,
    allow_unfinished: bool = False,
    classes: int | None = None,
    class_names: StrPath | None = None,
    ignore_index: int = 255,
    reduce_zero_label: bool = False,
    head: Literal["upernet", "linear"] = 'upernet',
    channels: int = 768,
    freeze: bool = False,
    image_size: int | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    least_scale: float = 0.5,
    most_scale: float = 2.0,
    max_class_share: float = 0.75,
    photometric: bool = True,
    drop_path: float | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    warmup_steps: int | None = None,
    schedule: Literal["poly", "cosine"] = 'poly',
    base_lr: float | None = None,
    min_lr: float = 0.0,
    weight_decay: float | None = None,
    evaluate: Literal["slide", "whole"] = 'slide',
    stride: int | None = None,
    multi_scale: bool = False,
    eval_every: int = 16000,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Train an encoder to name the class of each pixel, and measure mIoU, mAcc and aAcc.

    Defaults are the values of MAE with UPerNet on ADE20K, as mmsegmentation has them for a ViT-B
    (its configs/mae): BEiT's protocol (arXiv 2106.08254), which MILAN reports by. For ADE20K itself
    add --classes 150 --reduce-zero-label; for a ViT-L, --drop-path 0.2. For a frozen encoder with a
    linear head as DINOv2 has it (2304.07193): --head linear --freeze.

    If the command is killed or stopped (Ctrl-C, SIGTERM, SIGUSR1), run it again: it continues from
    the newest checkpoint. On CPUs it ends with the same weights.

    Args:
        out: Run folder to write.
        batch_size: Samples in a batch of all processes; default: the published number, or
            less for small data.
        clip_grad: Largest norm of the gradients (arXiv 1211.5063); default: no clipping.
        ema_decay: Decay of a moving average of the weights (arXiv 1703.01780), which is
            kept and exported beside them. It is at most 1 - t^(-2/3) at step t, as in
            timm's ModelEmaV3; default: no average.
        seed: Seed of the first weights, of the order and of all random draws.
        lanes: Number of lanes: equal sequences into which an epoch is divided. Loader
            processes of a process share its lanes equally; default: up to 64, or 8 for each
            process if there are more than 8.
        shuffle_block: Number of samples of a lane that are shuffled together.
        precision: Number type of the arithmetic; auto: bf16 on a GPU that has it, else
            fp32.
        max_steps: Stop after this many steps; default: at the end of the schedule.
        micro_batch: Samples in one forward pass of one process. Gradients of a batch are
            added up. A smaller number takes less memory.
        compile: Compile the model's blocks with torch.
        gradient_checkpointing: Save memory: compute the blocks again in the backward pass.
        checkpoint_every: Steps between checkpoints.
        keep: Number of checkpoints to keep.
        log_every: Steps between rows in the log.
        wandb: Project of Weights & Biases that gets the log, beside TensorBoard's files in
            --out. Without a network set WANDB_MODE=offline; default: none.
        workers: Loader processes of each training process; auto: one for each core that it
            may use.
        max_bad_fraction: Largest share of images that may be unreadable; above 0, one is
            always allowed. Other images take their place.
        cache: Local folder that keeps data read from remote shards; default: none.
        cache_gb: Largest size of --cache, in gigabytes.
        processes: Number of training processes to start on this machine, if torchrun does
            not start them; default: one.
        device: Where to train: auto, cpu, cuda.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        encoder: The encoder: a run folder, a .safetensors with its .json, a timm name (with
            a tag: pretrained), or open_clip:MODEL/TAG.
        train: Images and masks to train on: shards with .mask.png, or a folder below
            images/ with its masks below annotations/ (as in ADE20K). Only --eval-only needs
            none; default: none.
        val: Images and masks to score on: a folder of the same kind.
        eval_only: Do not train: score the model in --encoder, a .safetensors file of this
            stage.
        label: Name of the encoder in tables; default: --encoder.
        label_fraction: Share of the training images to use. With classes: this share of
            each class, at least one image.
        check: Check masks and images to score on before the first step: all, or 1,000 of
            each set; default: all, with --dry-run none.
        random_init: Give the encoder random weights: a baseline.
        layer_decay: Factor of a layer's learning rate for each layer that comes after it.
        allow_unfinished: Start from a run that is not finished.
        classes: Number of classes in the masks. Only --eval-only knows it from the
            segmenter; default: none.
        class_names: Text file with the name of a class in each line, in the order of their
            numbers; default: none, with --eval-only those of the segmenter.
        ignore_index: Value of mask pixels that do not count.
        reduce_zero_label: Mask pixels with 0 do not count, and 1 is the first class.
        head: upernet: UPerNet on the patches of four blocks (arXiv 1807.10221). linear:
            BatchNorm and a 1x1 convolution on those of the last.
        channels: Width of UPerNet; not for linear.
        freeze: Train only the head.
        image_size: Side of the views, in pixels; default: 512, with --eval-only that of the
            segmenter.
        short_side: Length of an image's short side after scaling; default: --image-size.
        long_side: Largest length of the long side then; 0: no limit; default: four times
            the short side.
        least_scale: Smallest random factor of the scale.
        most_scale: Largest random factor of the scale.
        max_class_share: Largest share of a view that one class should cover. Several crops
            are tried.
        photometric: Change brightness, contrast, saturation and hue at random.
        drop_path: Rate of stochastic depth (arXiv 1603.09382); default: 0.1, with --freeze
            0.
        epochs: Length of the schedule in passes over the images, instead of --steps;
            default: --steps.
        steps: Length of the schedule, in steps; default: 160,000.
        warmup_steps: Steps of warm-up, in which the learning rate rises; default: 1500, or
            a tenth of all steps if that is less.
        schedule: Learning rate after the warm-up: a straight line down, or half a cosine.
        base_lr: Learning rate for a batch of 16. It is scaled to --batch-size; default:
            1e-4, with --freeze 1e-3.
        min_lr: Learning rate at the end.
        weight_decay: AdamW's weight decay; default: 0.05, with --freeze 1e-4.
        evaluate: slide: score windows of --image-size and average their logits. whole:
            score each image at once.
        stride: Pixels between windows; default: half of --image-size.
        multi_scale: Average the scores of six scales (0.5 to 1.75) and of their mirror
            images.
        eval_every: Steps between evaluations.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def compare(
    *folders: StrPath,
    out: StrPath | None = None,
    over_seeds: bool = False,
    hashes: bool = False,
    config: StrPath | None = None,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Show all results of probe, finetune and segment in and below FOLDERS as one table.

    A row has the encoder, stage, seed, the metrics in per cent, and the folder. It also has the
    options in which the results differ. A metric has its 95% interval behind it. Below the table
    are the pairs of rows that do not differ by a test at 95%: a paired one if both kept what they
    answered for each image. A line names mIoU of rows that were scored by different protocols.
    If the table is wider than the terminal, folders are left out of it,
    then intervals. If it is still too wide, each row is written as a block of lines.

    Args:
        folders: FOLDERS of the command line.
        out: File to write the table to, in addition to printing it; default: none.
        over_seeds: Join results that differ only in their seed, or in the seed of runs with
            one --label: mean ± sample standard deviation (number).
        hashes: Show a hash of everything that the figures depend on; --json always has it.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def inspect(
    *paths: StrPath,
    html: StrPath | None = None,
    images: StrPath | None = None,
    targets: StrPath | None = None,
    originals: StrPath | None = None,
    results: StrPath | list[StrPath] | tuple[StrPath, ...] = (),
    gallery: int = 24,
    seed: int = 0,
    threads: int | Literal["auto"] = 'auto',
    config: StrPath | None = None,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Show what is in a target store, in shards, or in one or more runs; write a page with --html.

    The command prints facts about PATHS and does not change them. A folder with runs below it
    stands for all of them. The page opens from disk, without
    a network. It has a gallery of targets with masks and nearest patches, histograms, or the curves
    of training. Several runs are compared.

    Args:
        paths: PATHS of the command line.
        html: File to write the page to; default: no page.
        images: Folder of the image shards, to show pixels on the page; default: no pixels.
        targets: Target store or shards of these images, to show what runs predict. Images
            that the runs were not trained on tell most; default: no predictions.
        originals: Target store that these targets were transcoded from, to show what the
            codec lost; default: no comparison.
        results: Folder with results of probe, finetune or segment, in it or below it; may
            be repeated; default: the run's own folder.
        gallery: Number of views or images on the page; of predictions, at most 12.
        seed: Seed of the sample that is shown, and of the masks.
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def export(
    run: StrPath,
    *,
    form: Literal["timm", "official", "huggingface", "onnx", "safetensors"],
    out: StrPath,
    ema: bool = False,
    threads: int | Literal["auto"] = 'auto',
    allow_unfinished: bool = False,
    overwrite: bool = False,
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Write the weights of RUN for other programs, with a model card.

    RUN is a folder of pretrain, import-checkpoint, finetune or segment; of the last two, the best
    weights are written. timm, huggingface and onnx: encoders and classifiers. onnx: segmenters,
    too; the file is run by onnxruntime and compared with torch. official: encoder and prompting
    decoder for MILAN's own code. safetensors: any of them, as --encoder takes it.

    Args:
        run: RUN of the command line.
        form: The program that will load the weights.
        out: Folder to write.
        ema: Export the moving average of the encoder's weights (--ema-decay of pretrain).
        threads: Threads that compute in each process; auto: one for each core that the
            process may use, at most OMP_NUM_THREADS, which torchrun sets to 1 for several
            processes. The last bits of results depend on the number.
        allow_unfinished: Export a run that is not finished.
        overwrite: Replace an export that was made with other options.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def recipes(
    name: StrPath | None = None,
    *,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """List the installed recipes, or show the one that is called NAME.

    A recipe is a YAML file with values of options for one or more commands: --config NAME takes
    them. To change one, write it to a file of your own and give that to --config.

    Args:
        name: NAME of the command line.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def submit(
    recipe: StrPath,
    *,
    images: StrPath,
    out: StrPath,
    val: StrPath | None = None,
    targets: StrPath | None = None,
    target_shards: StrPath | None = None,
    parts: int = 16,
    nodes: int = 1,
    gpus: int = 1,
    processes_per_node: int | None = None,
    cpus_per_task: int | None = None,
    account: str | None = None,
    partition: str | None = None,
    time: str | None = None,
    sbatch: str | list[str] | tuple[str, ...] = (),
    container: str | None = None,
    setup: str | list[str] | tuple[str, ...] = (),
    config: StrPath | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Submit a RECIPE to Slurm: extraction as a job array, packing, pretraining, fine-tuning.

    RECIPE is the name of an installed recipe, or a YAML file. Its other sections make no job. Jobs
    wait for each other. If their time runs out or they are preempted, they stop and go back into
    the queue. Submit again at any time: only what is neither done nor queued is submitted. Keep the
    options of your site in a file (--config site.yaml).

    Args:
        recipe: RECIPE of the command line.
        images: Folder of image shards with manifest.json.
        out: Folder for scripts, logs, targets, shards and runs; on shared storage.
        val: Labelled images to score on, which fine-tuning needs; default: none, then
            nothing is fine-tuned.
        targets: Target store; default: OUT/targets.zarr.
        target_shards: Target shards; default: OUT/target-shards.
        parts: Largest number of tasks in the array of the extraction.
        nodes: Number of nodes that train together.
        gpus: GPUs on each node, for jobs that need them; 0: none.
        processes_per_node: Training processes on each node; default: one for each GPU, or
            one.
        cpus_per_task: CPU cores of a job on each of its nodes; default: that of the site.
        account: Slurm account that pays; default: that of the user.
        partition: Slurm partition, or several with commas; default: that of the site.
        time: Time limit of a job, as sbatch takes it: 24:00:00; default: that of the
            partition.
        sbatch: Another option of sbatch, for all jobs (--qos=low) or for one
            (pretrain:--time=48:00:00); may be repeated; default: none.
        container: Words before each command that run it in a container: 'apptainer exec
            --nv IMAGE'; default: none.
        setup: A line of shell at the start of each job: 'module load cuda'; may be
            repeated; default: none.
        config: File or installed recipe (YAML) with values of options, at the top or under
            the command's name. Options on the command line win; default: none.
        dry_run: Print what would be done, and do nothing.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """


def doctor(
    folder: StrPath = '.',
    *,
    hub: bool = True,
    device: str = 'auto',
    quiet: bool = False,
    verbose: bool = False,
    debug: bool = False,
) -> StageResult:
    """Say what this machine has for the pipeline, and what to set where that helps.

    It looks at the GPU, the fast precisions, the cores, their load, the threads, the shared memory,
    the disk of FOLDER and the hub of weights. Each line begins with ok, look or bad, and the line
    below says what helps. It takes a few seconds. 64 MB are written to FOLDER and removed again.

    Args:
        folder: FOLDER of the command line.
        hub: Ask whether the hub of weights answers within three seconds.
        device: Where the precisions are timed: auto, cpu, cuda.
        quiet: Print errors only. Commands that report still print their report.
        verbose: Print also what is done to each unit or shard.
        debug: Print everything, and the traceback of an error.
    """
