"""Token-reduction methods inside Hugging Face LLaVA models.

    with reduce_tokens(model, get_method("divprune", keep=0.1)) as record:
        model.generate(**inputs)
    record.visual_tokens, record.kept_indices, record.sequence_lengths

Works on LLaVA, LLaVA-NeXT, LLaVA-NeXT-Video, Video-LLaVA and LLaVA-OneVision of transformers 5.17 to
5.23: forward and `generate`, any decoding strategy, batches padded on either side, several images in a
prompt, prompts of different lengths. Everything is done by hooks and by attributes of single instances,
which are taken back at the end of the block.

Where each place is, and what follows it:

    place            reduces                               positions        attention kernel
    after-vision     each crop, before the projector       contiguous       any
    after-projector  whole image or video (DivPrune),      contiguous       any
                     or each crop (M3)
    vision-layers    each crop, inside the tower           contiguous       any (bias on the logits where
                                                                            sizes differ: sdpa, eager)
    llm-layer        the sequence, between layers          the old ones     sdpa, eager
                                                           (PyramidDrop and
                                                           SparseVLM: contiguous)

What does not work says so: a static cache, labels, embeddings without ids, an attention mask with a row
per query; inside the language model also sliding windows, other attention kernels, and a second image on
top of a cache. Methods that rank by the class token need a tower that has one (CLIP; not SigLIP).
LLaVA-OneVision pools video frames on their grid, so only DivPrune and the methods inside the language
model work on its videos.

Inside the language model the cache is ragged: layers before the cut hold the whole prompt, those behind
it less. New positions and masks follow from the first layer, so decoding works with sdpa and eager, one
token at a time or several.

Crops of a tiled image are reduced one by one and joined in order, without newline tokens, unpadding or
shrinking, since they form no grid any more; DivPrune sees the joined tokens, newlines among them. A class
token that the projector gets (Video-LLaVA's videos) goes along and is not reduced. PruMerge's adaptive
threshold is taken over all crops of a forward, as its program does over a batch.

A method's own matrix products, which `torch.utils.flop_counter` counts between the begin and the end that
`observe` is told, in FLOPs per image or crop; everything else a method does (sorts, top-k, softmax,
norms, gathers, scatters, pooling, DivPrune's running minimum, PruMerge's weighted sums over neighbours)
has no product in it. n patches or visual tokens, w width of the vision tower, d of the language model, e
head dim of the layer at hand, s tokens of the sequence there, t tokens entering the vision layer at hand,
m kept:

    prumerge, prumerge+   2 (n+1) w   class token's row of q k^T: the one row the definition uses
                          2 m n w     keys of the kept against all keys (prumerge+: the grid among the m)
                          2 n w       the extra token; not in variant="paper"
    divprune              2 n^2 d     cosine distances
    fastv                 2 s h e     last row of q k^T at layer K-1, h query heads; nothing at K = 0
      variant="paper"     2 s^2 h e   all rows
    vtw, sequential, spatial, m3      none
    fitprune              4 s^2       per layer that deletes: two weighted sums over rows of the maximum
    tome                  2 ceil(t/2) floor(t/2) e       per layer that merges
    evit                  2 t w + 2 p w                  per layer that acts, p patches fused
    ats                   none
    crossget              2 t^2 e                        per layer

Those of the newer methods are listed in `crop_attention`, `item_methods`, `question` and
`llm_progressive`. CDPruner needs CLIP's joint space, which no LLaVA checkpoint holds: without a file that
has it, it is random, and the record says so.

What the methods change in the model's own products: FitPrune's layers compute queries, keys, values and
all rows of the attention for s tokens, o_proj and FFN for those left. ATS computes all rows of q k^T, but
only the sampled rows meet the values, out_proj and MLP. ToMe, EViT and CrossGET run the attention whole
and the MLP on what is left. FitPrune (in layers that delete), ATS (in its layers) and CrossGET (in all)
write their attention scores out; everywhere else the kernel is the model's own.
"""

from __future__ import annotations

from token_reduction.apply.record import ReductionRecord
from token_reduction.apply.reduction import reduce_tokens

__all__ = ["ReductionRecord", "reduce_tokens"]
