"""Pictures drawn with a base and adapter files: a sampler that stays warm, and grids of pictures."""
