"""From a trained adapter to a score on Kaggle: image, wheels, bundle, kernel, plan, API."""
