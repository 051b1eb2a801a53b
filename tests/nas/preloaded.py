"""Everything that a search imports, for the process from which `killing` forks its searches."""

import killing  # noqa: F401
import optuna
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch

import nas.exports.python  # noqa: F401

torch.set_num_threads(1)
optuna.storages.RDBStorage("sqlite:///:memory:")
optuna.samplers.TPESampler(multivariate=True)
