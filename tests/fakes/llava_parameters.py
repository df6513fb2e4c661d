"""Parameters of LLaVA-1.5-7B by where they stand; the sums of transformers on the meta device."""

#: 32 layers of q, k, v, o and of gate, up, down.
DECODER = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
#: 24 layers of q, k, v, out and of fc1, fc2.
TOWER = 24 * (4 * 1024**2 + 2 * 1024 * 4096)
PROJECTOR = 1024 * 4096 + 4096**2
HEAD = 32064 * 4096
ALL = 7_063_427_072
#: What no quantiser touches: embeddings, norms, biases, the patch embedding.
REST = ALL - DECODER - TOWER - PROJECTOR - HEAD
#: Outputs of the decoder's products, each with a scale of its own in formats per channel.
DECODER_ROWS = 32 * (5 * 4096 + 2 * 11008)
TOWER_ROWS = 24 * (5 * 1024 + 4096)
