"""What is measured: the model, its inputs, its stages and how it is run."""
