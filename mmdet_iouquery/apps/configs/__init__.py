"""The configs that came with the package, as a table."""
