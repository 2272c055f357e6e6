"""Pictures for a person to look at: the pool as a run has labelled it, and the images that are worth a label."""
