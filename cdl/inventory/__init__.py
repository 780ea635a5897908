"""The state of the files of a study: done, outdated, damaged, left over. Does not import torch."""
