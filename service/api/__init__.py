"""gRPC servicers: check the request, make one service call, return."""
