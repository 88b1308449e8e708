"""The distillation algorithm: velocity fields, rollouts, query samplers, objectives, routers and the trainer.

Imports only `errors` and `lookup` from the project; knows no model family, no file format and no recipe.
"""
