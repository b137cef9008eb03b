"""Generations as users create them: names of adapters resolved, checked, and accepted as work that runs like a job."""
