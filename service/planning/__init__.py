"""Specs and base models as the packing planner sees them. Decides nothing; `service.control` does."""
