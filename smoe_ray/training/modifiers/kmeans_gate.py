"""A gate that starts from clusters: k-means of the latent means, E clusters, one for each expert.

The posterior means mu of up to `images` training images are clustered (k-means++, then Lloyd's iterations), and the
gate is trained to name each image's cluster, given latent samples as in training: `FIT_STEPS` steps of Adam on the
cross-entropy, each with new samples. The gate's state in the trial's optimizer is forgotten.

`after` says when. By default not before the first step: a fresh encoder's means have a standard deviation of about 0.1
and its samples one of 1, so no gate can find a cluster again. On digits (lite encoder, E = 10) fitted gates named 0.13
of the clusters before the first step, 0.17 after 64 steps and 0.79 after 128.

Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding". Shapes: N images, E experts, Z latent.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from torch import Tensor, nn

from smoe_ray.model import Encoded, SMoEVAE
from smoe_ray.spec.modifiers import KMeansGateSpec
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.modifiers.base import Modifier, Moment
from smoe_ray.training.rng import Stream, random_stream

FIT_STEPS = 100
"""Steps of Adam, each on all images."""

FIT_LEARNING_RATE = 0.01

_LLOYD_ITERATIONS = 100
"""At most; it ends when no image changes its cluster."""

_CHUNK = 512
"""Images encoded at once."""


class KMeansGate(Modifier[KMeansGateSpec]):
    """Fits the gate before the step that `after` names."""

    def before_step(self, moment: Moment) -> None:
        """The leader fits a copy of the gate, and every worker takes its weights."""
        if moment.step != int(self.spec.after * moment.steps_total):
            return
        fitted = copy.deepcopy(moment.model)
        if moment.workers.rank == 0:
            generator = random_stream(moment.images.device, moment.seed, Stream.KMEANS)
            encoded = encode(moment.model, moment.images, self.spec.images, generator)
            cluster_N = kmeans(encoded.mu_BZ, moment.model.experts.num_experts, generator)
            fit_gate(fitted, encoded, cluster_N, generator)
        gate, new = (cast(nn.Module, model.gate) for model in (moment.model, fitted))
        gate.load_state_dict({name: moment.workers.of_leader(value) for name, value in new.state_dict().items()})
        for parameter in gate.parameters():
            moment.optimizer.state.pop(parameter, None)


@torch.no_grad()
def encode(model: SMoEVAE, images: DeviceImages, count: int, generator: torch.Generator) -> Encoded:
    """Posteriors of `count` training images drawn at random, of all where there are fewer."""
    model.eval()  # an encoder of a plug-in may drop units in training
    batches = images.batches(_CHUNK, math.ceil(count / _CHUNK), generator)
    encoded = [model.encoder(batch.image_BHW) for batch in batches]
    model.train()
    return Encoded(*(torch.cat(values)[:count] for values in zip(*encoded, strict=True)))


def kmeans(x_NZ: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Cluster number of each row of x: (N,). A cluster that loses all its rows keeps its centre."""
    x_NZ = x_NZ.double()
    centre_EZ = _spread_out(x_NZ, num_clusters, generator)
    cluster_N = torch.cdist(x_NZ, centre_EZ).argmin(dim=1)
    for _ in range(_LLOYD_ITERATIONS):
        member_NE = F.one_hot(cluster_N, num_clusters).double()
        size_E1 = member_NE.sum(dim=0)[:, None]
        # A matrix product, not index_add: on a GPU that adds in no fixed order.
        centre_EZ = torch.where(size_E1 > 0, member_NE.t() @ x_NZ / size_E1.clamp(min=1), centre_EZ)
        before_N, cluster_N = cluster_N, torch.cdist(x_NZ, centre_EZ).argmin(dim=1)
        if torch.equal(before_N, cluster_N):
            break
    return cluster_N


def _spread_out(x_NZ: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """First centres (k-means++): each is a row drawn with probability proportional to its squared distance to those
    before it.
    """
    chance_N = torch.ones_like(x_NZ[:, 0])
    distance_N = torch.full_like(chance_N, math.inf)
    centres = []
    for _ in range(count):
        centre_Z = x_NZ[torch.multinomial(chance_N, 1, generator=generator)][0]
        centres.append(centre_Z)
        distance_N = torch.minimum(distance_N, (x_NZ - centre_Z).square().sum(dim=1))
        chance_N = distance_N + torch.finfo(distance_N.dtype).tiny  # of fewer different rows than centres, some repeat
    return torch.stack(centres)


def fit_gate(model: SMoEVAE, encoded: Encoded, cluster_N: Tensor, generator: torch.Generator) -> None:
    """Train a model's gate, of any kind, to name the clusters of latent samples."""
    mu_NZ, sigma_NZ = encoded.mu_BZ, torch.exp(0.5 * encoded.logvar_BZ)
    optimizer = torch.optim.Adam(cast(nn.Module, model.gate).parameters(), lr=FIT_LEARNING_RATE)
    for _ in range(FIT_STEPS):
        optimizer.zero_grad(set_to_none=True)
        noise_NZ = torch.randn(mu_NZ.shape, generator=generator, device=mu_NZ.device)
        F.cross_entropy(model.logits(mu_NZ + sigma_NZ * noise_NZ), cluster_N).backward()
        optimizer.step()
