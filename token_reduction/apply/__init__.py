"""What carries a token-reduction method inside Hugging Face models.

    with reduce_tokens(model, get_method("divprune", keep=0.1)) as record:
        model.generate(**inputs)
    record.visual_tokens, record.kept_indices, record.sequence_lengths

Works on the families that `costmodel.models.families` lists, each with the methods that docs/families.md
says: forward and `generate`, any decoding strategy, batches padded on either side, several images in a
prompt, prompts of different lengths. Everything is done by hooks and by attributes of single instances,
which are taken back at the end of the block. A method's own module says which of these places it takes
(see `places`), and its docstring what its own work costs:

    place            reduces                               positions        attention kernel
    before-vision    the pixels, or their patches          contiguous (*)   any
    after-vision     each crop, before the projector       contiguous       any
    after-projector  whole image or video, or each crop    contiguous (*)   any
    vision-layers    each crop, inside the tower           contiguous       any (bias on the logits where
                                                                            sizes differ: sdpa, eager)
    llm-layer        the sequence, between layers          the old ones     sdpa, eager
                                                           (or contiguous)

(*) Where positions have three axes (Qwen's families), tokens that are kept keep their own.

What does not work says so: a static cache, labels, embeddings without ids, an attention mask with a row
per query; inside the language model also other attention kernels, and a second image on top of a cache.
Methods that rank by the class token need a tower that has one (CLIP; not SigLIP).
LLaVA-OneVision pools video frames on their grid, so only methods on whole items and those inside the language
model work on its videos.

InternVL and SmolVLM get a clip's frames as images; `reduce_tokens(model, "evs", frames=8)` says that they
are one.

Inside the language model the cache is ragged: layers before the cut hold the whole prompt, those behind
it less. New positions and masks follow from the first layer, so decoding works with sdpa and eager, one
token at a time or several. Sliding windows go by the places that tokens have in the whole prompt.

Crops of a tiled image are reduced one by one and joined in order, without newline tokens, unpadding or
shrinking, since they form no grid any more; methods on whole images see the joined tokens, newlines among
them. A class token that the projector gets (Video-LLaVA's videos) goes along and is not reduced.
"""

from __future__ import annotations

from token_reduction.apply.record import ReductionRecord

__all__ = ["ReductionRecord"]
