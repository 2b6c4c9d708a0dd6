"""What learns: labels, online learners, registered models, the ensemble over them, and what tells that the world has changed.

Everything here keeps the operators' laws: no clock, no randomness but a recorded seed, no file; a model's bytes are handed in. To add
an online learner nothing is added here: any River class is named in the configuration. To add a kind of registered model, add its
loader to `boosted.LOADERS`.
"""
