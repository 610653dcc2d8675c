"""Reference tables and schemas, generated from the declarations of settings and metrics."""
