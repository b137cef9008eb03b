"""gRPC servicers: check what came in, make one service call, answer."""
