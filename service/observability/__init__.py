"""Shows operators this process: health, metrics, log lines and traces. Decides nothing."""
