"""The models of the plug-in: the name in `--model`, which is the module's, and its class."""

AVAILABLE_MODELS = {"vlm_roofline": "ReducedModel"}
