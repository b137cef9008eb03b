"""What can be said of deploy/ without a cluster."""
