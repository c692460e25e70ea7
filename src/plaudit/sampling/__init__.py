"""The `Sampler` seam: prompts go in, groups of answers come out."""

from plaudit.sampling.sampler import ModelSampler
from plaudit.sampling.seam import Request, Sampler

__all__ = ["ModelSampler", "Request", "Sampler"]
