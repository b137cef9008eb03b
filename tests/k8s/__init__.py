"""lorafleet on a real cluster: `make test-k8s` (scripts/test-k8s.sh) runs these, and nothing else does."""
