"""The guards of times, noises, weights and losses."""

GUARDS = (
    (
        "objective: a flow's error is weighed as its latents' is",
        "trainer/objectives/flow.py",
        "return self.weighting.of_latents(_snr(sigmas)) * sigmas.pow(2)",
        "return self.weighting.of_latents(_snr(sigmas))",
        "tests/trainer/objectives/test_weights.py",
    ),
    (
        "objective: what is perturbed is not to be told",
        "trainer/objectives/draws.py",
        "target=objective.target(latents, noise.told, times)",
        "target=objective.target(latents, noise.added, times)",
        "tests/trainer/objectives/test_objective.py",
    ),
    (
        "objective: pyramid noise is brought back row by row",
        "trainer/objectives/noises.py",
        "return noise / noise.flatten(1).std(dim=1).reshape(-1, 1, 1, 1)",
        "return noise / noise.std()",
        "tests/trainer/objectives/test_noises.py",
    ),
    (
        "objective: held-out times keep to the range",
        "trainer/objectives/times.py",
        "return [self._within((k + 0.5) / number) for k in range(number)]",
        "return [(k + 0.5) / number for k in range(number)]",
        "tests/trainer/objectives/test_times.py",
    ),
    (
        "objective: each style of a pack has its own loss",
        "trainer/pack/batch.py",
        "        if len(losses) == 1:",
        "        if losses:",
        "tests/trainer/pack/test_objectives.py",
    ),
)
