"""Prepares specs and base models for the packing planner. Decides nothing; `service.control` does."""
