-- Older code goes on working.
--
-- Tasks that were cancelled or expired, perhaps long after their last attempt. Execution keeps the attempts of a task
-- for the days of its retention from their own ends on, so it has to ask about these.
CREATE INDEX finished_tasks_late ON finished_tasks (id) WHERE attempt > 1 AND state IN (9, 10);
