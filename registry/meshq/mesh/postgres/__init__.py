"""What the components that keep a PostgreSQL share. It needs psycopg, which comes with their extras."""
