"""The session of a recipe, the loop over it, its folder, validations and processes."""
