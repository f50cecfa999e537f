"""xDS resources as pure functions of the instances and the policy."""
