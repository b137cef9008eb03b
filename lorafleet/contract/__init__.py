"""Says what the control plane and the trainer agree on: names in the store, manifests, and how stores are reached."""
