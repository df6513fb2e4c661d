"""The subject of a measurement: the model, its inputs, its stages and how it is run."""
