"""Where data sets come from: TFDS, image folders, scikit-learn's digits, made-up images."""
