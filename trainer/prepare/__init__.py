"""From a run's manifest to styles that can train: bases, pictures and captions looked at, latents and texts cached."""
