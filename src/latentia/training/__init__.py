"""Training: a game of players, one loop, atomic checkpoints, and random numbers that are functions of the step."""

from latentia.training.distributed import Worker, start_worker
from latentia.training.game import Game, Player, Probe
from latentia.training.loggers import CSV, Logger, MLflow, TensorBoard, WandB
from latentia.training.loop import fit
from latentia.training.optimizers import SGD, Adam, AdamW, Constant, Cosine, OneCycle, Optimizer
from latentia.training.run_directory import RunDirectory
from latentia.training.seeds import seed_of, seeded
from latentia.training.settings import Training

__all__ = [
    "CSV",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Game",
    "Logger",
    "MLflow",
    "OneCycle",
    "Optimizer",
    "Player",
    "Probe",
    "RunDirectory",
    "TensorBoard",
    "Training",
    "WandB",
    "Worker",
    "fit",
    "seed_of",
    "seeded",
    "start_worker",
]
