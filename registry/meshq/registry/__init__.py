"""The registry: who is where, from etcd, and how they may talk, as xDS."""
