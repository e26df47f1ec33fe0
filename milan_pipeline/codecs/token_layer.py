"""The second layer of an image's record: each patch by its kind, less what the first layer says.

Each patch has a byte, its class: a centre of one of the kinds. Further bytes follow, as many as the
tier of the class has. A patch is the sum of

- what the image layer says of it,
- its centre,
- what its kind predicts from the decoded components of CLS, and
- components of its kind, each times a level and times the spread that it has in that kind.

The record has all classes first and then the further bytes, patch by patch. The encoder gives each
patch the tier that saves most, within the bytes of the image.

Legend: n samples, L patches, T patches of all samples, D target width, B bytes an image; S kinds, E
centres of a kind, A = S E classes, K components of a kind, P predicting components of CLS, U tiers.
"""

from typing import NamedTuple

import numpy as np
import torch

from milan_pipeline.codecs.kinds import (
    Expectation,
    best_of_tiers,
    expectation_of,
    expected_losses,
    times_matrix_of_kind,
    within_budget,
)
from milan_pipeline.codecs.record_arrays import BYTE, LEVELS, Arrays


class TokenLayer(NamedTuple):
    """The arrays on one device; `groups` lists the components of each byte of each tier."""

    centre_SED: torch.Tensor
    basis_SKD: torch.Tensor
    predict_SPD: torch.Tensor
    spread_SK: torch.Tensor
    tier_A: torch.Tensor
    bytes_U: torch.Tensor
    place_UK: torch.Tensor
    level_UK256: torch.Tensor
    groups: list[list[torch.Tensor]]
    expected: Expectation


def token_layer(arrays: Arrays, device: torch.device) -> TokenLayer:
    """Put the arrays of a codec on a device."""
    tensor = {name: torch.from_numpy(arrays[name]) for name in arrays}
    sizes = arrays["tier_bytes"].tolist()
    # A component that a tier does not code has no levels there.
    is_coded_UK = arrays["tier_level"].any(axis=-1)
    members_UK = np.where(is_coded_UK, arrays["tier_place"], -1)
    groups = [
        [
            torch.from_numpy(np.flatnonzero(members_UK[tier] == place)).to(device)
            for place in range(size)
        ]
        for tier, size in enumerate(sizes)
    ]
    expected = expectation_of(arrays["spread"], [BYTE * size for size in sizes])
    return TokenLayer(
        centre_SED=tensor["centre"].float().to(device),
        basis_SKD=tensor["kind_basis"].float().to(device),
        predict_SPD=tensor["predict"].float().to(device),
        spread_SK=tensor["spread"].to(device),
        tier_A=tensor["tier"].flatten().long().to(device),
        bytes_U=tensor["tier_bytes"].long().to(device),
        place_UK=tensor["tier_place"].long().to(device),
        level_UK256=tensor["tier_level"].to(device),
        groups=groups,
        expected=Expectation(*(each.to(device) for each in expected)),
    )


def encode_tokens(
    patches_nLD: torch.Tensor, cls_nC: torch.Tensor, layer: TokenLayer, size: int
) -> torch.Tensor:
    """Return the bytes (n, size) of this layer, uint8.

    Args:
        patches_nLD: patches, less what the image layer says of them.
        cls_nC: decoded components of CLS.
        layer: what codes them.
        size: bytes of this layer; at least those of the smallest tier for all patches.
    """
    count, patches = patches_nLD.shape[:2]
    added_nSD = _predictions(cls_nC, layer)
    class_nL = _classes(patches_nLD, added_nSD, layer, size - patches)
    rest_nLD = patches_nLD - _middles(class_nL, added_nSD, layer)
    kind_T = (class_nL // layer.centre_SED.shape[1]).flatten()
    value_TK = times_matrix_of_kind(rest_nLD.flatten(0, 1), kind_T, layer.basis_SKD.mT)
    # The last column takes what belongs to no tier of a patch.
    record = torch.zeros(count, size + 1, dtype=torch.uint8, device=patches_nLD.device)
    record[:, :patches] = class_nL.to(torch.uint8)
    start_T = _starts(class_nL, layer).flatten()
    image_T = torch.arange(count, device=start_T.device).repeat_interleave(patches)
    tier_T = layer.tier_A[class_nL.flatten()]
    for tier, groups in enumerate(layer.groups):
        rows_T = _rows_of(tier_T, tier)
        is_own_T = tier_T[rows_T] == tier
        spread_TK = layer.spread_SK[kind_T[rows_T]]
        for place, group in enumerate(groups):
            level = layer.level_UK256[tier, group]
            nearest_T = _nearest(value_TK[rows_T][:, group], spread_TK[:, group], level)
            column_T = torch.where(is_own_T, start_T[rows_T] + place, size)
            record[image_T[rows_T], column_T] = nearest_T
    return record[:, :size]


def decode_tokens(
    codes_nB: torch.Tensor, cls_nC: torch.Tensor, layer: TokenLayer, patches: int
) -> torch.Tensor:
    """Return what this layer adds to patches (n, L, D).

    Args:
        codes_nB: the bytes of this layer.
        cls_nC: decoded components of CLS.
        layer: what codes them.
        patches: L.
    """
    kinds, centres = layer.centre_SED.shape[:2]
    # Of codes that were not made here, any byte is a class.
    class_nL = codes_nB[:, :patches].long().clamp(max=kinds * centres - 1)
    kind_T = (class_nL // centres).flatten()
    tier_nL, components = layer.tier_A[class_nL], layer.place_UK.shape[1]
    place_nLK = _starts(class_nL, layer)[..., None] + layer.place_UK[tier_nL]
    byte_nX = codes_nB.gather(1, place_nLK.clamp(max=codes_nB.shape[1] - 1).flatten(1))
    number_K = LEVELS * torch.arange(components, device=codes_nB.device)
    first_nLK = LEVELS * components * tier_nL[..., None] + number_K
    level_nLK = layer.level_UK256.flatten()[first_nLK + byte_nX.reshape(place_nLK.shape).long()]
    level_TK = level_nLK.flatten(0, 1) * layer.spread_SK[kind_T]
    middle_nLD = _middles(class_nL, _predictions(cls_nC, layer), layer)
    return middle_nLD + times_matrix_of_kind(level_TK, kind_T, layer.basis_SKD).reshape(
        middle_nLD.shape
    )


def _classes(
    patches_nLD: torch.Tensor, added_nSD: torch.Tensor, layer: TokenLayer, budget: int
) -> torch.Tensor:
    """Return the classes (n, L) whose tiers have so many bytes in all, or fewer."""
    kept_SUK, floor_SU = layer.expected
    tier_SE = layer.tier_A.reshape(layer.centre_SED.shape[:2])
    loss_nLA = torch.cat(
        [
            expected_losses(
                patches_nLD - added_nD[:, None],
                layer.centre_SED[kind],
                layer.basis_SKD[kind],
                kept_TK=kept_SUK[kind],
                floor_T=floor_SU[kind],
                tier_E=tier_SE[kind],
            )
            for kind, added_nD in enumerate(added_nSD.unbind(dim=1))
        ],
        dim=-1,
    )
    class_nLU, loss_nLU = best_of_tiers(loss_nLA, layer.tier_A, len(layer.bytes_U))
    tier_nL = within_budget(loss_nLU, layer.bytes_U, budget)
    return class_nLU.gather(-1, tier_nL[..., None])[..., 0]


def _starts(class_nL: torch.Tensor, layer: TokenLayer) -> torch.Tensor:
    """Return where the further bytes of each patch begin (n, L)."""
    bytes_nL = layer.bytes_U[layer.tier_A[class_nL]]
    return class_nL.shape[1] + bytes_nL.cumsum(dim=1) - bytes_nL


def _rows_of(tier_T: torch.Tensor, tier: int) -> torch.Tensor:
    """Return the rows of a tier; on devices that should not wait for their number, all rows."""
    if tier_T.device.type == "cpu":
        return (tier_T == tier).nonzero()[:, 0]
    return torch.arange(len(tier_T), device=tier_T.device)


def _nearest(
    value_Tm: torch.Tensor, spread_Tm: torch.Tensor, level_m256: torch.Tensor
) -> torch.Tensor:
    """Return the bytes (T,) whose levels times spreads are nearest to values."""
    half_square_T256 = spread_Tm.square() @ (level_m256.square() / 2)
    return (half_square_T256 - (value_Tm * spread_Tm) @ level_m256).argmin(dim=-1).to(torch.uint8)


def _predictions(cls_nC: torch.Tensor, layer: TokenLayer) -> torch.Tensor:
    """Return what each kind predicts (n, S, D)."""
    kinds, predicting, width = layer.predict_SPD.shape
    predict_PX = layer.predict_SPD.transpose(0, 1).reshape(predicting, kinds * width)
    return (cls_nC[:, :predicting] @ predict_PX).reshape(len(cls_nC), kinds, width)


def _middles(class_nL: torch.Tensor, added_nSD: torch.Tensor, layer: TokenLayer) -> torch.Tensor:
    """Return the sum (n, L, D) of centre and prediction of patches of known classes."""
    kind_nL1 = (class_nL // layer.centre_SED.shape[1])[..., None]
    added_nLD = added_nSD.gather(1, kind_nL1.expand(*class_nL.shape, added_nSD.shape[-1]))
    return layer.centre_SED.flatten(0, 1)[class_nL] + added_nLD
