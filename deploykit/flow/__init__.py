"""From a source to a verified bundle: plan, convert, make, prove; later verify, evaluate."""
