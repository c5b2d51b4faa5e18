"""CIDer and the science around it: data, missing modalities, models, training, metrics.

Knows nothing of Ray, Optuna or the command line; those live in ``cider_platform``. Importing this
package imports nothing heavy.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
