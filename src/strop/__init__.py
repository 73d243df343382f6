"""Strop: low-rank interventions on Hugging Face Transformers, found, proved and shipped.

>>> import strop
>>> model, tokenizer = strop.load("smollm2-135m")  # doctest: +SKIP
>>> result = strop.search(model, tokenizer, strop.load_task("world-facts"))  # doctest: +SKIP
>>> print(result)  # doctest: +SKIP
"""

import lazy_loader

__version__ = "0.1.0"

# The public names stand in __init__.pyi; each is loaded from its room on first use, so that importing strop stays light.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
