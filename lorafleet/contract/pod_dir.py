"""Names the folder that pods of a run are given for their own. A module of its own, so that importing it imports nothing else."""

POD_DIR_ENV = "LORAFLEET_POD_DIR"  # word that the pod must go is left there (trainer/eviction.py)
