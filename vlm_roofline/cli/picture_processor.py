"""A checkpoint's own processor for pictures alone, where its part for videos cannot be loaded.

Processors of families that take videos load the part for them with the rest, which needs torchvision;
pictures, text and the places between them do not.
"""

from __future__ import annotations

import inspect
from typing import Any

#: Parts of a processor, which are loaded each by itself.
_PARTS = ("image_processor", "tokenizer", "video_processor")


def picture_processor(source: str) -> Any:
    """Return the processor of a checkpoint's family, without the part for videos.

    Args:
        source: a local folder, or a hub id.

    Raises:
        KeyError: a family that has no processor.
        OSError: a file that is not there.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    kind: Any = PROCESSOR_MAPPING[type(config)]

    class Pictures(kind):  # type: ignore[misc]
        """Asks for no part for videos."""

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            if name == "video_processor":
                return None
            return super().check_argument_for_proper_class(name, argument)

        def apply_chat_template(self, *given: Any, **more: Any) -> Any:
            """What families do beside asks the part for videos."""
            return transformers.ProcessorMixin.apply_chat_template(self, *given, **more)

    said, _ = kind.get_processor_dict(source)
    names = [name for name in inspect.signature(kind.__init__).parameters if name not in _PARTS]
    return Pictures(
        image_processor=transformers.AutoImageProcessor.from_pretrained(source),
        tokenizer=transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False),
        video_processor=None,
        **{name: said[name] for name in names if name in said},
    )
