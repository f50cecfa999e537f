DELETE FROM attempts WHERE task_id = ANY (%s::uuid[])
