"""cdl: continual distillation learning of prompts between frozen vision transformers."""

__version__ = "0.2.0"

# Raise this by one when a code change alters the numbers that a training rule produces. Every
# training rule carries it as a parameter, so raising it is what makes finished tasks run again.
NUMERICS = 1
