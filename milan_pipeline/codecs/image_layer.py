"""The first layer of an image's record: coefficients of the image as a whole.

Patches are turned into principal components, and each component's values over the grid into
patterns of positions. CLS has principal components of its own. Of all these coefficients, those of
much variance are coded, in groups: a byte selects the levels of a group. Groups of a size share
their levels, in standard deviations.

Legend: n samples, N tokens (CLS first), L patches, D target width, B bytes an image; C components
of CLS, K of patches, M patterns of positions, J coded coefficients, V columns of levels; G groups
of a size, m their size.
"""

from typing import NamedTuple

import torch

from milan_pipeline.codecs.record_arrays import LEVELS, Arrays

CPU_BLOCK = 4
"""Samples that are compared with all levels at a time on the CPU."""


class GroupsOfSize(NamedTuple):
    """Groups that share levels: their coefficients, bytes, and levels (m, 256)."""

    member_Gm: torch.Tensor
    byte_G: torch.Tensor
    level_m256: torch.Tensor


class ImageLayer(NamedTuple):
    """The arrays on one device; `size` is the number of bytes of this layer."""

    mean_ND: torch.Tensor
    cls_basis_CD: torch.Tensor
    basis_KD: torch.Tensor
    position_ML: torch.Tensor
    row_J: torch.Tensor
    byte_J: torch.Tensor
    scale_J: torch.Tensor
    first_J: torch.Tensor
    level: torch.Tensor
    groups: list[GroupsOfSize]
    size: int


def image_layer(arrays: Arrays, device: torch.device) -> ImageLayer:
    """Put the arrays of a codec on a device."""
    tensor = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return ImageLayer(
        mean_ND=tensor["mean"].float().to(device),
        cls_basis_CD=tensor["cls_basis"].float().to(device),
        basis_KD=tensor["basis"].float().to(device),
        position_ML=tensor["position"].float().to(device),
        row_J=tensor["row"].long().to(device),
        byte_J=tensor["byte"].long().to(device),
        scale_J=tensor["scale"].to(device),
        first_J=(LEVELS * tensor["column"].long()).to(device),
        level=tensor["level"].flatten().to(device),
        groups=[GroupsOfSize(*(each.to(device) for each in group)) for group in _groups(arrays)],
        size=int(arrays["byte"].max()) + 1,
    )


def _groups(arrays: Arrays) -> list[GroupsOfSize]:
    """Collect the coefficients of each byte; those whose levels are the same go together."""
    members: dict[int, list[int]] = {}
    for number, byte in enumerate(arrays["byte"].tolist()):
        members.setdefault(byte, []).append(number)
    by_columns: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    for byte, numbers in members.items():
        columns = tuple(arrays["column"][numbers].tolist())
        by_columns.setdefault(columns, []).append((byte, numbers))
    return [
        GroupsOfSize(
            torch.tensor([numbers for _, numbers in own]),
            torch.tensor([byte for byte, _ in own]),
            torch.from_numpy(arrays["level"][list(columns)]),
        )
        for columns, own in by_columns.items()
    ]


def coefficients(direction_nND: torch.Tensor, layer: ImageLayer) -> torch.Tensor:
    """Return the coefficients (n, J) that are coded."""
    centred_nND = direction_nND - layer.mean_ND
    cls_nC = centred_nND[:, 0] @ layer.cls_basis_CD.T
    if direction_nND.shape[1] == 1:
        return cls_nC[:, layer.row_J]
    patches_nMK = layer.position_ML @ (centred_nND[:, 1:] @ layer.basis_KD.T)
    return torch.cat([cls_nC, patches_nMK.flatten(1)], dim=1)[:, layer.row_J]


def encode_image(direction_nND: torch.Tensor, layer: ImageLayer) -> torch.Tensor:
    """Return the bytes (n, size) of this layer, uint8."""
    value_nJ = coefficients(direction_nND, layer)
    codes = torch.zeros(len(value_nJ), layer.size, dtype=torch.uint8, device=value_nJ.device)
    if not len(value_nJ):
        return codes
    rows = CPU_BLOCK if value_nJ.device.type == "cpu" else len(value_nJ)
    for group in layer.groups:
        scale_Gm = layer.scale_J[group.member_Gm]
        # Errors count in the units of coefficients, so those of a group by their scales.
        half_square_G256 = scale_Gm.square() @ (group.level_m256.square() / 2)
        for first in range(0, len(value_nJ), rows):
            scaled_nGm = value_nJ[first : first + rows][:, group.member_Gm] * scale_Gm
            nearest_nG = (half_square_G256 - scaled_nGm @ group.level_m256).argmin(dim=-1)
            codes[first : first + rows, group.byte_G] = nearest_nG.to(torch.uint8)
    return codes


def decode_image(
    codes_nB: torch.Tensor, layer: ImageLayer
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the components of CLS (n, C), CLS (n, D) and patches (n, L, D) of this layer."""
    tokens = len(layer.mean_ND)
    components, width = layer.basis_KD.shape
    of_cls, of_patches = len(layer.cls_basis_CD), len(layer.position_ML) * components
    value_nJ = layer.level[layer.first_J + codes_nB[:, layer.byte_J].long()] * layer.scale_J
    all_nR = value_nJ.new_zeros(len(codes_nB), of_cls + of_patches)
    all_nR[:, layer.row_J] = value_nJ
    cls_nC = all_nR[:, :of_cls]
    cls_nD = cls_nC @ layer.cls_basis_CD + layer.mean_ND[0]
    if tokens == 1:
        return cls_nC, cls_nD, cls_nD.new_zeros(len(codes_nB), 0, width)
    patterns = len(layer.position_ML)
    value_nMK = all_nR[:, of_cls:].reshape(len(codes_nB), patterns, components)
    patches_nLD = layer.position_ML.T @ value_nMK @ layer.basis_KD
    return cls_nC, cls_nD, patches_nLD + layer.mean_ND[1:]
