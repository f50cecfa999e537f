"""What Envoy is told: its bootstrap, built as typed protobuf from descriptors and settings."""
