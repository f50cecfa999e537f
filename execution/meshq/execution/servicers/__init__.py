"""The gRPC services of execution; each translates and hands over."""
