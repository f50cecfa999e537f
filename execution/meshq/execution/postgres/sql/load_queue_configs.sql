SELECT q.config FROM queue_configs AS q
