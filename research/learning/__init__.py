"""Learning beside the pipeline: the registry of trained models, training, evaluation and what decides on promotions. Nothing here is asked
by an operator while it steps: what a pipeline uses of it, it is given as artefacts and as promotions on its tape."""
