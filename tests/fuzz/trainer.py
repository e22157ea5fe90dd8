"""Arguments of Lightning's Trainer, its callbacks and loggers, and the environment variables of schedulers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytorch_lightning.callbacks
import pytorch_lightning.loggers
from hypothesis import strategies as st
from pytorch_lightning.strategies import StrategyRegistry

from tests.fuzz.case import Case, Command, CommandOutcome
from tests.fuzz.small import MADE, QUICK, TOY, TWO_EPOCHS, VAE, has_finite_nll, results_in

CHOICES = {
    "strategy": ["auto", "nonsense", "DDPStrategy", "SingleDeviceStrategy", "FSDPStrategy", "ModelParallelStrategy",
                 *StrategyRegistry.available_strategies()],
    "accelerator": ["cpu", "auto", "gpu", "cuda", "mps", "tpu", "nonsense"],
    "precision": ["16", "16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true", "64", "32", "bf16",
                  "transformer-engine", "8", "nonsense"],
    "devices": ["1", "auto", "[0]", "0", "-1", "[1]", "cpu", "1.5"],
    "num_nodes": ["1", "0", "-1"],
    "max_epochs": ["1", "3", "-1", "0", "-2"],
    "min_epochs": ["1", "3", "0", "-1", "100"],
    "max_steps": ["1", "3", "0", "-1", "-2"],
    "min_steps": ["1", "3", "-1", "8"],
    "max_time": ["00:00:00:05", "00:00:00:00", "5", "{seconds: 3}", "{hours: -1}", "tomorrow"],
    "limit_train_batches": ["0", "1", "2", "0.5", "1.0", "0.1", "-1", "1.5", "1000"],
    "limit_val_batches": ["0", "1", "0.5", "1.0", "0.1", "-1", "1000"],
    "limit_test_batches": ["0", "1", "0.5", "0.1", "-1"],
    "limit_predict_batches": ["0", "1"],
    "overfit_batches": ["0", "1", "2", "0.5", "1.0", "0.1", "-1", "1000"],
    "fast_dev_run": ["true", "false", "1", "3", "0", "-1"],
    "val_check_interval": ["1", "2", "0.5", "1.0", "0.1", "3", "100", "0", "-1", "00:00:00:01", "{seconds: 1}"],
    "check_val_every_n_epoch": ["1", "2", "3", "0", "null"],
    "num_sanity_val_steps": ["0", "1", "2", "-1", "-2"],
    "log_every_n_steps": ["1", "0", "50", "-1", "null"],
    "enable_checkpointing": ["true", "false"],
    "enable_progress_bar": ["true", "false"],
    "enable_model_summary": ["true", "false"],
    "accumulate_grad_batches": ["1", "2", "3", "1000", "0", "-1", "{0: 2}"],
    "gradient_clip_val": ["1", "0", "0.5", "null", "-1", "nan", "inf"],
    "gradient_clip_algorithm": ["norm", "value", "nonsense"],
    "deterministic": ["true", "false", "warn"],
    "benchmark": ["true", "false"],
    "inference_mode": ["true", "false"],
    "use_distributed_sampler": ["true", "false"],
    "profiler": ["simple", "advanced", "pytorch", "xla", "nonsense", "AdvancedProfiler", "SimpleProfiler",
                 "PassThroughProfiler"],
    "detect_anomaly": ["true", "false"],
    "barebones": ["true", "false"],
    "sync_batchnorm": ["true", "false"],
    "reload_dataloaders_every_n_epochs": ["0", "1", "2", "-1"],
    "plugins": ["LightningEnvironment", "SLURMEnvironment", "TorchElasticEnvironment", "AsyncCheckpointIO",
                "TorchCheckpointIO", "[]", "nonsense", "TorchSyncBatchNorm"],
    "enable_autolog_hparams": ["true", "false"],
    "model_registry": ["mine", "null"],
}  # fmt: skip
"""Values of the Trainer's arguments."""
CALLBACKS: dict[str, list[dict[str, Any]]] = {
    "BackboneFinetuning": [{"unfreeze_backbone_at_epoch": 1}],
    "BatchSizeFinder": [{"max_trials": 2, "steps_per_trial": 1}, {"mode": "binsearch", "max_trials": 1}],
    "DeviceStatsMonitor": [{"cpu_stats": True}],
    "EarlyStopping": [{"monitor": "val/objective"}, {"monitor": "val/nll", "patience": 0}, {"monitor": "val_loss"},
                      {"monitor": "train/nll", "patience": 1}, {"monitor": "val/nll", "mode": "sideways"},
                      {"monitor": "val/nll", "stopping_threshold": 1000.0},
                      {"monitor": "val/nll", "check_on_train_epoch_end": True}],
    "GradientAccumulationScheduler": [{"scheduling": {0: 2}}, {"scheduling": {1: 2}}, {"scheduling": {0: 0}},
                                      {"scheduling": {}}],
    "LearningRateFinder": [{"num_training_steps": 3}, {"num_training_steps": 20, "attr_name": "lr"}],
    "LearningRateMonitor": [{"logging_interval": "step"}, {"logging_interval": "epoch", "log_momentum": True}],
    "ModelCheckpoint": [{"dirpath": "mine"}, {"monitor": "val/nll", "filename": "best"}, {"monitor": "val_loss"},
                        {"save_last": True}, {"save_last": "link"}, {"every_n_train_steps": 1, "save_top_k": -1},
                        {"save_weights_only": True, "filename": "last"}, {"monitor": "val/nll", "save_top_k": 0},
                        {"save_top_k": 2}],
    "ModelPruning": [{"pruning_fn": "l1_unstructured"}, {"pruning_fn": "random_unstructured", "amount": 1},
                     {"pruning_fn": "nonsense"}],
    "ModelSummary": [{"max_depth": 3}, {"max_depth": -1}],
    "OnExceptionCheckpoint": [{"dirpath": "mine"}, {}],
    "StochasticWeightAveraging": [{"swa_lrs": 0.01}, {"swa_lrs": 0.01, "swa_epoch_start": 1}, {"swa_lrs": 0},
                                  {"swa_lrs": 0.01, "swa_epoch_start": 0.1}, {"swa_lrs": [0.01, 0.1]},
                                  {"swa_lrs": 0.01, "swa_epoch_start": 100}, {}],
    "SpikeDetection": [{"warmup": 1}, {"rtol": None, "atol": 0.0}, {"window": 1}],
    "ThroughputMonitor": [{}, {"batch_size_fn": "len"}],
    "Timer": [{"duration": "00:00:00:05"}, {"duration": "00:00:00:00"}, {"interval": "epoch"}, {"duration": "x"}],
    "TQDMProgressBar": [{"refresh_rate": 0}, {"leave": True}],
    "EMAWeightAveraging": [{"decay": 0.5}, {"decay": 1.0}, {"update_every_n_steps": 2}, {"decay": 2.0},
                           {"update_starting_at_epoch": 1}, {"update_starting_at_step": 100}, {"use_buffers": False}],
    "WeightAveraging": [{"use_buffers": False}, {"device": "cpu"}],
}  # fmt: skip
"""Arguments of callbacks; those that are not named here, and all of these at times, are given without any."""
LOGGERS: dict[str, list[dict[str, Any]]] = {
    "CSVLogger": [{"save_dir": "csv"}, {"save_dir": "csv", "flush_logs_every_n_steps": 1}, {"save_dir": "", "name": ""},
                  {"save_dir": "csv", "version": "one"}, {}],
    "TensorBoardLogger": [{"save_dir": "logs"}, {"save_dir": "logs", "log_graph": True},
                          {"save_dir": "logs", "name": ""}, {"save_dir": "logs", "sub_dir": "below"},
                          {"save_dir": "logs", "default_hp_metric": True}],
    "WandbLogger": [{"offline": True}],
    "MLFlowLogger": [{"save_dir": "logs"}],
    "CometLogger": [{}],
    "LitLogger": [{}],
}  # fmt: skip
ENVIRONMENTS: list[dict[str, str]] = [
    {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "jupyter"},
    {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "interactive"},
    {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash", "SLURM_JOB_ID": "17"},
    {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "17", "SLURM_LOCALID": "0", "SLURM_PROCID": "0"},
    {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "mine", "SLURM_JOB_ID": "17", "SLURM_LOCALID": "0", "SLURM_PROCID": "0",
     "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1"},
    {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "mine"},
    {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "mine", "SLURM_PROCID": "0"},
    {"SLURM_NTASKS": "many", "SLURM_JOB_NAME": "mine"},
    {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "4"},
    {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0",
     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "TORCHELASTIC_RUN_ID": "none"},
    {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "GROUP_RANK": "0"},
    {"RANK": "0", "WORLD_SIZE": "one", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0",
     "TORCHELASTIC_RUN_ID": "none"},
    {"TORCHELASTIC_RUN_ID": "none"},
    {"LOCAL_RANK": "0"},
    {"LOCAL_RANK": "first"},
    {"WORLD_SIZE": "1"},
    {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"},
    {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "nowhere", "JSM_NAMESPACE_LOCAL_RANK": "0", "JSM_NAMESPACE_SIZE": "1"},
    {"KUBERNETES_PORT": "tcp://127.0.0.1:443", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "WORLD_SIZE": "1",
     "RANK": "0"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    {"CUDA_VISIBLE_DEVICES": "7"},
    {"PL_TRAINER_MAX_EPOCHS": "1"},
    {"PYTHONHASHSEED": "0", "PL_GLOBAL_SEED": "many"},
]  # fmt: skip


@st.composite
def trainer(draw: Any) -> Case:
    """A training of a few steps with one to three arguments of the Trainer, and a scheduler's variables at times."""
    typed: list[str] = []
    of = st.sampled_from(["argument", "another argument", "strategy", "callbacks", "logger", "environment"])
    kinds = draw(st.lists(of, min_size=1, max_size=3, unique=True))
    arguments = draw(st.permutations(sorted(CHOICES.keys() - {"strategy"})))[
        : sum("argument" in kind for kind in kinds)
    ]
    for name in [*arguments, *(["strategy"] if "strategy" in kinds else [])]:
        typed += [f"--trainer.{name}={draw(st.sampled_from(CHOICES[name]))}"]
    if "callbacks" in kinds:
        typed += draw(_classes("callbacks", pytorch_lightning.callbacks.__all__, CALLBACKS))
    if "logger" in kinds:
        names = pytorch_lightning.loggers.__all__ + 8 * ["CSVLogger", "TensorBoardLogger"]  # the others need packages
        typed += draw(_classes("logger", names, LOGGERS))
    environment = draw(st.sampled_from(ENVIRONMENTS)) if "environment" in kinds else {}
    no_evaluation = ("--num_samples=0",) if draw(st.integers(0, 9)) == 0 else ()
    some = draw(st.sampled_from([(*MADE, *TOY), (*MADE, *TOY), (*VAE, "--data", "Digits")]))
    is_watched = not any("spawn" in word for word in typed)
    command = Command("train", (*some, *QUICK, *TWO_EPOCHS, *no_evaluation, *typed), environment, is_watched=is_watched)
    return Case((command,), check=_check)


@st.composite
def _classes(draw: Any, key: str, names: list[str], arguments: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What is typed for one class of a kind, or for two."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    given = [draw(st.sampled_from([{}, *2 * arguments.get(name, [{}])])) for name in chosen]
    if len(chosen) == 1:
        words = [f"--trainer.{key}", chosen[0]]
        typed = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given[0].items()}
        return [*words, *(f"--trainer.{key}.{name}={value}" for name, value in typed.items())]
    parts = [{"class_path": name, "init_args": values} for name, values in zip(chosen, given, strict=True)]
    return [f"--trainer.{key}", json.dumps(parts)]


def _check(case: Case, outcomes: list[CommandOutcome], folder: Path) -> str | None:
    (outcome,) = outcomes
    typed = outcome.command.arguments
    is_short = any(f"--trainer.fast_dev_run={value}" in typed for value in ("true", "1", "3"))
    if outcome.code != 0 or is_short or "--num_samples=0" in typed:
        return None
    found = [results_in(path) for path in folder.rglob("results.json")]
    return None if any(map(has_finite_nll, found)) else "it ended well, but left no finite nll in a results.json"
