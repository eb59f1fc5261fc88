"""`make gpu`: hardray on one card, against a plain loop on the same card."""
