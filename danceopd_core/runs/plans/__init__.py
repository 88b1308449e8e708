"""A recipe read, checked and planned before a model is opened, and the models that it names opened."""
