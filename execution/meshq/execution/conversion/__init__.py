"""Where protobuf and the types of execution meet: beside the servicers, only this package knows messages."""
