"""Jobs that learn one task of one learner. Imports nothing."""
