"""Adapters as users handle them: what was trained, as versions under a name."""
