"""The sampler of tests.trainer.generation, for the command that draws."""

from tests.trainer.generation.conftest import emoji

__all__ = ["emoji"]
