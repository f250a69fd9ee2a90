"""JAX and torch in one process."""
