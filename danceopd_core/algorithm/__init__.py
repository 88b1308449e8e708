"""The distillation algorithm: fields, rollouts, queries, objectives, routers, the trainer.

Imports only `errors` and `lookup`; knows no model family, no file and no recipe.
"""
