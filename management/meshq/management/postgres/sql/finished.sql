-- Stands behind finish.sql where the rows are wanted.
SELECT
    <finished row>
FROM moved AS f
