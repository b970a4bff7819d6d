"""The bundle: adapter, settings and digests that go to Kaggle as one dataset."""
