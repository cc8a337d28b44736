"""The guard that lives inside a job's own Python. Nothing of ours imports it; ``site/`` is put on the job's PYTHONPATH.

``site/`` holds ``sitecustomize.py`` and the package ``_mainstay_guard`` and must never hold anything else: every name in it
shadows a module of the job for a moment. Those files parse on every old Python (2.7 too), are active on CPython 3.8 and later,
and load builtin modules only. What they leave behind is read by ``supervisor.adapters.guard``.
"""
