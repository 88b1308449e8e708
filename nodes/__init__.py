"""The nodes: edges carry frozen specs; Train and Sample open models, use them and let go of them."""
