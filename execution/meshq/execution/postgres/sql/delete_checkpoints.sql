DELETE FROM checkpoints WHERE task_id = ANY (%s::uuid[])
