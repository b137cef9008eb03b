"""The name by which pods of a run are given a folder of their own. A module of its own, so that importing it imports nothing else."""

POD_DIR_ENV = "LORAFLEET_POD_DIR"  # word that the pod must go is left there (trainer/leaving.py)
