"""One task of one learner: from artifacts to an artifact. Nothing is imported here."""
