-- Reads what there is to do for the instance that does it for all, and the term of its office: whether attempts lie in
-- partitions of last resort, whether there are any checkpoints, and whether any tasks are completed by somebody else.
SELECT
    coalesce((SELECT term FROM offices WHERE name = %s::text), 0),
    EXISTS (SELECT FROM attempts_1_default) OR EXISTS (SELECT FROM attempts_3_default)
    OR EXISTS (SELECT FROM attempts_7_default) OR EXISTS (SELECT FROM attempts_14_default)
    OR EXISTS (SELECT FROM attempts_30_default) OR EXISTS (SELECT FROM attempts_90_default)
    OR EXISTS (SELECT FROM attempts_180_default) OR EXISTS (SELECT FROM attempts_365_default),
    EXISTS (SELECT FROM checkpoints),
    EXISTS (SELECT FROM deferrals)
