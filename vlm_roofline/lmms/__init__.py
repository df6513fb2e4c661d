"""A plug-in for lmms-eval: `LMMS_EVAL_PLUGINS=vlm_roofline.lmms`, then `--model vlm_roofline`.

Written for the interface of lmms-eval 0.7.3, which imports `models` and looks for tasks in `tasks`; nothing
of it is imported elsewhere.
"""
