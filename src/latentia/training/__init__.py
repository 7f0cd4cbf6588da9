"""Training: a game of players, one engine, atomic checkpoints, and randomness that is a function of the step."""

from latentia.training.game import Batch, Game, Player, Probe
from latentia.training.loop import Interrupted, Outcome, play
from latentia.training.optimizers import SGD, Adam, AdamW, Constant, Cosine, OneCycle, Optimizer, Schedule, Stages
from latentia.training.processes import make_fabric
from latentia.training.run_directory import RunDirectory
from latentia.training.seeds import seed_of, seeded
from latentia.training.settings import Training

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Batch",
    "Constant",
    "Cosine",
    "Game",
    "Interrupted",
    "OneCycle",
    "Optimizer",
    "Outcome",
    "Player",
    "Probe",
    "RunDirectory",
    "Schedule",
    "Stages",
    "Training",
    "make_fabric",
    "play",
    "seed_of",
    "seeded",
]
