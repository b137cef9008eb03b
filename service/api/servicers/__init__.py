"""Implements the services of the wire: each method checks the request, makes one call and returns."""
