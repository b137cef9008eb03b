"""The public SDK: specs, the client and the command line. Knows neither torch nor Ray nor the database."""

__version__ = "0.1.0"

DEFAULT_SERVER = "127.0.0.1:7600"
DEFAULT_TENANT = "default"
