"""The gRPC services of management."""
