"""Commands that are not stages: status, demo, doctor, plan, report and others."""
