"""A page to try a model in the browser: ``make demo``. Gradio is imported by ``page`` and nothing else."""
