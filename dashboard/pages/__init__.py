"""The pages, one package each: its `__init__.py` describes it as `PAGE`, its `view.py` draws it in `show()`."""
