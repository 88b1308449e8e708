"""Model families behind one protocol, and how they are found, loaded, quantised, offloaded and sampled.

May import `algorithm` and `weights`.
"""
