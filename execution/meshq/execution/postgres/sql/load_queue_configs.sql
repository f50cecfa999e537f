SELECT q.config, q.homed FROM queue_configs AS q
