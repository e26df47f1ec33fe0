"""Looking patches up on a GPU: pixels and labels go there, and only the counts come back."""

import timm
import torch

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.encoders.frozen import StudentEncoder
from milan_pipeline.evaluate.dense.memory import Memory
from milan_pipeline.evaluate.dense.retrieval import Retrieval, encoded_patches
from milan_pipeline.evaluate.dense.views import DenseView
from tests.support.fake_gpu import GPU, Copy, fake_gpu

SIZE, WIDTH, CLASSES = 32, 64, 5


def test_a_batch_is_one_copy_there_and_answered_without_another() -> None:
    model = timm.create_model("test_vit", img_size=SIZE, num_classes=0)
    pixels = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    views = [DenseView(pixels, pixels[0], "a", 0)] * 4
    how = Retrieval(
        classes=CLASSES, neighbours=30, temperature=0.02, memory=100, seed=0, batch=4, workers=0,
        stop=StopRequest(),
    )  # fmt: skip
    with fake_gpu() as copies:
        model.to(GPU)
        encoder = StudentEncoder(model, name="x", mean=[0.5] * 3, std=[0.2] * 3, bf16=True)
        memory = Memory(torch.zeros(20_000, WIDTH, device=GPU), torch.zeros(20_000, 5, device=GPU))
        copies.made.clear()
        patches = encoded_patches(encoder, views)
        answers = how.answers(memory, patches, SIZE)
        assert (patches.shape, patches.dtype) == ((4, 4, WIDTH), torch.float32)
        assert (answers.shape, answers.device) == ((4, SIZE, SIZE), GPU)
        assert copies.made == [Copy("cuda", 4 * 3 * SIZE * SIZE, waits=False)]
