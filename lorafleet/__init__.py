"""The public SDK: specs, the client and the command line. Knows neither torch nor Ray nor the database."""

__version__ = "0.1.0"
