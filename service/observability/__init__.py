"""What operators see of this process: health, metrics, log lines and traces. Decides nothing."""
