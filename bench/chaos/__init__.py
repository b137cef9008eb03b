"""`make chaos`: a fleet under faults, and what independent records say of it afterwards. Run: python -m bench.chaos."""

import os

# Before anything imports gRPC: its fork handlers crash a child of a process that has calls under way, and PostgreSQL is one.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
