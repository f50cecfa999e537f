"""The gateway: Envoy at the edge of the mesh, its supervision, and the console."""
