"""Brings lorafleet to a cluster, and shows it at work there. Shell where commands are run in a row, Python where clients speak."""
