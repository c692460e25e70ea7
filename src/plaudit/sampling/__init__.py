"""The `Sampler` seam: prompts go in, groups of answers come out."""

from plaudit.sampling.seam import Request, Sampler
from plaudit.sampling.sampler import ModelSampler

__all__ = ["ModelSampler", "Request", "Sampler"]
