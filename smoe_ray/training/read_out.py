"""What frozen features of images tell about their classes: a linear read-out and nearest neighbours.

Shapes: N training images, B test images, Z a feature vector, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor

RIDGE = 1e-3
"""Weight of the ridge penalty, per training image, on features of unit variance."""

NEIGHBOURS = 20
"""Nearest training images that vote."""

_IMAGES_AT_ONCE = 1024


def linear_accuracy(train_NZ: Tensor, label_N: Tensor, test_BZ: Tensor, label_B: Tensor) -> float:
    """Share of the test images whose class a ridge regression on the training images' classes names.

    Features are scaled to mean 0 and variance 1 over the training images; targets are one-hot.
    """
    train_NZ, test_BZ = train_NZ.double(), test_BZ.double()
    mean_Z, deviation_Z = train_NZ.mean(dim=0), train_NZ.std(dim=0, correction=0)
    deviation_Z = torch.where(deviation_Z > 0, deviation_Z, 1)  # a dead unit says nothing
    train_NZ, test_BZ = ((each - mean_Z) / deviation_Z for each in (train_NZ, test_BZ))
    target_NC = F.one_hot(label_N, int(torch.maximum(label_N.max(), label_B.max())) + 1).double()
    mean_C = target_NC.mean(dim=0)
    penalty_ZZ = RIDGE * len(train_NZ) * torch.eye(train_NZ.shape[1], dtype=torch.float64, device=train_NZ.device)
    weight_ZC = torch.linalg.solve(train_NZ.t() @ train_NZ + penalty_ZZ, train_NZ.t() @ (target_NC - mean_C))
    return _share((test_BZ @ weight_ZC + mean_C).argmax(dim=1) == label_B)


def knn_accuracy(train_NZ: Tensor, label_N: Tensor, test_BZ: Tensor, label_B: Tensor) -> float:
    """Share of the test images whose class most of their 20 nearest training images have, by cosine.

    Of classes with as many of them, the lower number wins.
    """
    train_NZ, test_BZ = F.normalize(train_NZ.float(), dim=1), F.normalize(test_BZ.float(), dim=1)
    num_classes = int(torch.maximum(label_N.max(), label_B.max())) + 1
    votes = []
    for chunk_BZ in test_BZ.split(_IMAGES_AT_ONCE):
        nearest_BK = (chunk_BZ @ train_NZ.t()).topk(min(NEIGHBOURS, len(train_NZ)), dim=1).indices
        votes.append(F.one_hot(label_N[nearest_BK], num_classes).sum(dim=1).argmax(dim=1))
    return _share(torch.cat(votes) == label_B)


def _share(is_right_B: Tensor) -> float:
    return float(is_right_B.double().mean())
