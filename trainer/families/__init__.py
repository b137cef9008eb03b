"""Model families by the name that a spec gives them."""

from trainer.families.protocol import Family


def family(name: str) -> Family:
    """The family of that name. Imported on demand: each brings its own part of diffusers."""
    match name:
        case "sd1":
            from trainer.families.sd1 import StableDiffusion1

            return StableDiffusion1()
        case _:
            raise ValueError(f"no family {name!r}")
