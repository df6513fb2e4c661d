"""The plug-in brings no tasks; lmms-eval looks for them here all the same."""
