"""What is measured, a module for each part: `run(lab, scale)` gives its tables."""
