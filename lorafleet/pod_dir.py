"""The name by which pods of a run are given a folder of their own. By itself, so that whoever needs it imports nothing else."""

POD_DIR_ENV = "LORAFLEET_POD_DIR"  # word that the pod must go is left there (trainer/leaving.py)
