SELECT c.task_id, c.checkpoint FROM checkpoints AS c WHERE c.task_id = ANY (%s::uuid[])
