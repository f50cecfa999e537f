"""What servers and clients of meshq share beside the generated code."""
