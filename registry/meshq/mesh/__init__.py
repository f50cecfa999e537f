"""The kit that every process of the mesh embeds: settings, life, server, channels and registration."""
