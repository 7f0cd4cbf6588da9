"""The costs of both players: gradients, joint batches, packing, labels, coupling, shared fakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from latentia.data import Batch
from latentia.errors import ConfigurationError
from latentia.models import GAN
from latentia.networks import DCGAN, MLP
from latentia.objectives import (
    R1,
    R1R2,
    AdversarialLoss,
    AdversarialObjective,
    Consensus,
    DiffAugment,
    Minimax,
    NonSaturating,
    Penalty,
    Progress,
    Relativistic,
)
from latentia.training import Player, Training, start_worker
from latentia.training.game import Shared
from latentia.training.gradients import eager_gradients


def small_gan(packing: int = 1, classes: int = 0, seed: int = 0) -> GAN:
    torch.manual_seed(seed)
    network = MLP(hidden=(16,), activation="silu")
    return GAN(
        network.decoder(3, (2,), classes),
        network.encoder((2 * packing,), 1, classes),
        latent=3,
        shape=(2,),
        classes=classes,
        packing=packing,
    )


def gradients(cost: torch.Tensor, module: nn.Module) -> list[torch.Tensor | None]:
    return list(torch.autograd.grad(cost.mean(), list(module.parameters()), allow_unused=True, retain_graph=True))


def test_the_discriminator_cost_has_no_gradient_to_the_generator():
    gan = small_gan()
    terms = AdversarialObjective.of_gan(gan, Minimax(), R1()).discriminator_cost(torch.randn(8, 2), None, Progress())
    assert all(g is None for g in gradients(terms["cost"], gan.generator))
    assert all(g is not None for g in gradients(terms["cost"], gan.discriminator))


@pytest.mark.parametrize("loss", [Minimax(), Relativistic()])
def test_the_generator_cost_has_a_gradient_to_the_generator(loss: AdversarialLoss):
    gan = small_gan()
    terms = AdversarialObjective.of_gan(gan, loss).generator_cost(torch.randn(8, 2), None, Progress())
    assert terms["cost"].shape == (8,)
    assert all(g is not None for g in gradients(terms["cost"], gan.generator))


def test_cost_is_loss_and_penalty():
    terms = AdversarialObjective.of_gan(small_gan(), NonSaturating(), R1(gamma=2.0)).discriminator_cost(
        torch.randn(8, 2), None, Progress()
    )
    torch.testing.assert_close(terms["cost"], terms["loss"] + terms["penalty"])
    assert (terms["penalty"] > 0).all()
    loss = NonSaturating().discriminator(terms["real_logit"], terms["fake_logit"])
    torch.testing.assert_close(terms["loss"], loss)


def test_a_lazy_penalty_is_absent_between_its_steps():
    objective = AdversarialObjective.of_gan(small_gan(), NonSaturating(), R1(every=4))
    x = torch.randn(8, 2)
    on, off = (objective.discriminator_cost(x, None, Progress(step=step)) for step in (4, 5))
    assert on["penalty"].min() > 0
    assert off["penalty"].abs().max() == 0
    assert on.keys() == off.keys()


def test_the_weight_of_a_penalty_follows_the_progress():
    objective = AdversarialObjective.of_gan(small_gan(), NonSaturating(), R1(gamma=1.0, final=1e-4), epochs=10)
    x = torch.randn(64, 2)
    early, late = (
        objective.discriminator_cost(x, None, Progress(epoch=epoch))["penalty"].mean() for epoch in (0.0, 10.0)
    )
    assert (late / early).item() == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("penalty", [R1R2(gamma=0.7), R1(gamma=0.7)])
def test_a_joint_batch_gives_the_costs_of_two_batches(penalty: Penalty):
    gan, x = small_gan(), torch.randn(8, 2)
    at_once = AdversarialObjective.of_gan(gan, NonSaturating(), penalty)
    by_turns = AdversarialObjective.of_gan(gan, NonSaturating(), penalty)
    by_turns.joint = False
    results = []
    for objective in (at_once, by_turns):
        torch.manual_seed(3)
        results.append(objective.discriminator_cost(x, None, Progress()))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name])
    for a, b in zip(*(gradients(r["cost"], gan.discriminator) for r in results), strict=True):
        torch.testing.assert_close(a, b)


def test_batch_normalization_sees_real_and_fake_separately():
    network = DCGAN(width=4)
    gan = GAN(network.decoder(3, (1, 8, 8)), network.encoder((1, 8, 8), 1), latent=3, shape=(1, 8, 8)).train()
    terms = AdversarialObjective.of_gan(gan, NonSaturating()).discriminator_cost(
        torch.rand(6, 1, 8, 8), None, Progress()
    )
    real = torch.rand(6, 1, 8, 8)
    again = AdversarialObjective.of_gan(gan, NonSaturating()).discriminator_cost(real, None, Progress())
    torch.testing.assert_close(again["real_logit"], gan.discriminate(real))  # as without fake examples
    assert terms["cost"].shape == (6,)


@pytest.mark.parametrize("packing", [2, 4])
def test_packs_are_scored_together(packing: int):
    gan, x = small_gan(packing), torch.randn(8, 2)
    objective = AdversarialObjective.of_gan(gan, NonSaturating(), R1R2())
    assert objective.discriminator_cost(x, None, Progress())["cost"].shape == (8 // packing,)
    assert objective.generator_cost(x, None, Progress())["cost"].shape == (8 // packing,)
    assert torch.equal(gan.pack(x)[0], x[:packing].flatten())
    with pytest.raises(ConfigurationError, match="do not divide"):
        gan.pack(torch.randn(packing + 1, 2))


def test_labels_reach_both_networks():
    gan, x = small_gan(classes=3), torch.randn(6, 2)
    objective = AdversarialObjective.of_gan(gan, Relativistic(), R1R2())
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    values = []
    for given in (labels, (labels + 1) % 3):
        torch.manual_seed(0)
        values.append(objective.discriminator_cost(x, given, Progress())["loss"])
    assert not torch.allclose(values[0], values[1])
    with pytest.raises(ConfigurationError, match="label"):
        objective.generator_cost(x, None, Progress())


def test_consensus_adds_the_same_number_to_both_costs():
    gan, x = small_gan(), torch.randn(8, 2)
    plain, coupled = (
        AdversarialObjective.of_gan(gan, Minimax()),
        AdversarialObjective.of_gan(gan, Minimax(), Consensus(gamma=0.5)),
    )
    added = []
    for name in ("discriminator_cost", "generator_cost"):
        costs = []
        for objective in (plain, coupled):
            torch.manual_seed(1)
            costs.append(getattr(objective, name)(x, None, Progress())["cost"])
        added.append((costs[1] - costs[0]).detach())
    torch.testing.assert_close(added[0], added[0][:1].expand(8))
    torch.testing.assert_close(added[0], added[1])
    assert added[0][0] > 0


def test_both_real_and_fake_are_augmented():
    network = MLP(hidden=(8,))
    gan = GAN(network.decoder(2, (1, 8, 8)), network.encoder((1, 8, 8), 1), latent=2, shape=(1, 8, 8))
    seen = []
    gan.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    objective = AdversarialObjective.of_gan(
        gan, NonSaturating(), augmentation=DiffAugment(brightness=0, translation=0, cutout=0.5)
    )
    objective.discriminator_cost(torch.ones(4, 1, 8, 8), None, Progress())
    assert ((seen[0] == 0).flatten(1).sum(1) > 0).all()
    assert len(seen[0]) == 8


def runs_of(module: nn.Module) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    module.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    return outputs


def moves_of(objective: AdversarialObjective, gan: GAN, fakes: Shared) -> list[Any]:
    """The gradients of both players that share fakes, as the engine computes them."""
    worker = start_worker(Training())

    def of(cost: Any) -> Any:
        return lambda batch, progress, shared: cost(batch.x, batch.labels, progress, shared)

    players = [
        Player("discriminator", [gan.discriminator], of(objective.discriminator_cost), makes=fakes),
        Player("generator", [gan.generator], of(objective.generator_cost), takes=fakes),
    ]
    return [eager_gradients(player, player.parameters, worker) for player in players]


@pytest.mark.parametrize("penalty", [R1R2(gamma=0.7), R1(gamma=0.7)])
def test_shared_fakes_are_those_of_the_discriminator_cost(penalty: Penalty):
    gan, x = small_gan().train(), torch.randn(8, 2)
    made, seen = runs_of(gan.generator), []
    gan.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    fakes = Shared(lambda batch: gan.generate(gan.draw_latent(len(batch.x)), None))
    objective = AdversarialObjective.of_gan(gan, NonSaturating(), penalty)
    discriminator, generator = moves_of(objective, gan, fakes)
    shown = discriminator(Batch(x), Progress())
    assert all(p.grad is None for p in gan.generator.parameters())
    cost = generator(Batch(x), Progress())["cost"]
    assert len(made) == 1
    assert torch.equal(seen[0][8:], seen[-1])  # the second half of the joint batch
    torch.testing.assert_close(cost, NonSaturating().generator(None, shown["fake_logit"]))
    fresh = generator(Batch(x), Progress())["cost"]  # each kept batch is used once
    assert len(made) == 2
    assert not torch.allclose(fresh, cost)


def test_shared_fakes_give_the_gradient_of_the_same_latents():
    """The chain rule by hand over two graphs, against one graph, with a discriminator that has changed between them."""
    gan, x, z = small_gan().train(), torch.randn(8, 2), torch.randn(8, 3)
    objective = AdversarialObjective.of_gan(gan, Relativistic())
    discriminator, generator = moves_of(objective, gan, Shared(lambda _: gan.generate(z, None)))
    discriminator(Batch(x), Progress())
    with torch.no_grad():
        for parameter in gan.discriminator.parameters():
            parameter.mul_(1.1)
    generator(Batch(x), Progress())
    found = [p.grad for p in gan.generator.parameters()]
    gan.__dict__["draw_latent"] = lambda _: z
    expected = gradients(objective.generator_cost(x, None, Progress())["cost"], gan.generator)
    torch.testing.assert_close(found, expected)


def test_shared_fakes_keep_their_labels():
    gan, x = small_gan(classes=3).train(), torch.randn(6, 2)
    seen: list[torch.Tensor] = []
    gan.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    fakes = Shared(lambda batch: gan.generate(gan.draw_latent(len(batch.x)), batch.labels))
    discriminator, generator = moves_of(AdversarialObjective.of_gan(gan, NonSaturating()), gan, fakes)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    discriminator(Batch(x, labels), Progress())
    generator(Batch(x, (labels + 1) % 3), Progress())
    assert torch.equal(seen[-1], labels)
