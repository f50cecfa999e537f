"""Names that the gateway and the registry agree on, and those that Envoy's parts call each other by."""

from __future__ import annotations

from typing import Final

COMPONENT: Final = "meshq.gateway"
"""The component, and the cluster of Envoy's node."""

REGISTRY_CLUSTER: Final = "registry"
"""The static cluster of the xDS servers."""

EDGE_ROUTES: Final = "edge"
"""The route configuration that the registry serves for the edge."""

EDGE_LISTENER: Final = "edge"
"""The listener, and the prefix of its statistics: `http.edge.*`."""

EDGE_METADATA: Final = "edge"
"""The key of the registration's metadata that holds the edge's address."""

CONSOLE_METADATA: Final = "console"
"""The key of the registration's metadata that holds the console's address."""
