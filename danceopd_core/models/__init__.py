"""Model families behind the Backbone protocol, and how they are found, loaded, quantised, offloaded and sampled.

Imports `algorithm` (fields and flow only), `weights`, `errors` and `lookup` from the rest of the project.
"""
