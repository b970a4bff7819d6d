"""The bundle that goes to Kaggle and the offline rehearsal of its kernel; no torch."""
