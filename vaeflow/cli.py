"""The command line of ``train.py``: LightningCLI, configs that have names, a folder for each run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from argparse import SUPPRESS, ArgumentParser
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, DefaultHelpFormatter
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt, restricted_number_type
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from vaeflow.callbacks import Checkpoints, Curves, Pictures, Progress, Unchanged
from vaeflow.checkpoint import Files, check_config
from vaeflow.configs import config_names, experiment_of, find_config
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.evaluate import best_accelerator
from vaeflow.files import new_version
from vaeflow.launch import as_launched
from vaeflow.provenance import record_start

TRAINER_DEFAULTS = {
    "accelerator": best_accelerator(),
    "devices": 1,
    "default_root_dir": "runs",
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
    "gradient_clip_val": 500.0,  # several times what any config has after its first steps
    "use_distributed_sampler": False,  # it pads; the data modules share out whole batches themselves
}
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<=", 2**32 - 1)])  # numpy's
VERSION = "VAEFLOW_VERSION"
"""The environment variable that tells the processes that a run starts of its folder."""
SHOWN = {
    "max_epochs": "passes over the training data",
    "max_time": "stop after so long, DD:HH:MM:SS",
    "accelerator": "cpu, gpu, …; by default the best at hand",
    "devices": "how many, or which: data.batch_size is that of all together",
    "precision": "32-true, 64-true, bf16-mixed, …",
    "gradient_clip_val": "largest norm of the gradient",
    "accumulate_grad_batches": "batches for each step of the optimizer",
    "check_val_every_n_epoch": "epochs from one validation to the next",
    "callbacks": "further callbacks of Lightning, such as EarlyStopping or EMAWeightAveraging",
    "default_root_dir": "folder of all runs",
}
"""The Trainer's keys that ``--help`` shows, with one line each."""


class TrainingCLI(LightningCLI):
    """What ``train.py`` takes: ``--config`` by name, ``--experiment``, ``--ckpt_path``, and any key of a config."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(
            usage="train.py --config NAME [--KEY VALUE ...]",
            epilog="Every key of a config is an option: --print_config shows them all as YAML, --model.help VAE and "
            "--data.help MNIST explain those of a class, and the Trainer's are all of Lightning's.",
            formatter_class=Help,
            **kwargs,
        )
        parser.add_argument(
            "-c", "--config", action=NamedConfig, help=f"a YAML file, or a name: {', '.join(config_names())}"
        )
        return parser

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        for action in self.parser._actions:
            section, _, key = action.dest.partition(".")
            if section == "trainer":
                action.help = SHOWN.get(key, SUPPRESS)
        titles = {
            "trainer": "Training (more keys: --print_config)",
            "model": "Model",
            "data": "Data",
            "pictures": "Pictures",
        }
        for name, title in titles.items():
            self.parser.groups[name].title = title  # type: ignore[index]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(_config_first(sys.argv[1:] if args is None else args))

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add = parser.add_argument
        add(
            "--seed_everything",
            type=Seed,
            default=self.seed_everything_default,
            help="seed of weights, order and noise",
        )
        add("--experiment", type=str | None, default=None, help="name of the run's folder, by default the config's")
        add(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="resume from this checkpoint; `last`: the newest last.ckpt of the experiment, if there is one",
        )
        add(
            "--num_samples",
            type=NonNegativeInt | None,
            default=None,
            help="samples for each test example: by default 1000 of a VAE's latents, 1 of dequantisation noise; "
            "0: no evaluation",
        )
        add("--evaluation_seed", type=NonNegativeInt, default=0, help="seed of the evaluation's noise")
        add("--memory_mb", type=PositiveFloat, default=256.0, help="what one chunk of the evaluation computes, in MiB")
        add(
            "--checkpoint_every",
            type=PositiveInt,
            default=1000,
            help="steps from one last.ckpt to the next, which is written after each validation as well",
        )
        add(
            "--on_nonfinite",
            type=Literal["stop", "skip"],
            default="stop",
            help="where a loss or gradient is NaN or infinite: stop the run, or leave out that step, for which a GPU "
            "waits after each step",
        )
        add("--compile", action="store_true", help="compile the losses with torch.compile, which takes up to a minute")
        add("--trust", type=str, nargs="*", default=[], help="packages whose classes the config of a run may name")
        add("--debug", action="store_true", help="show the traceback of an error")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Pictures, "pictures")
        for name in ("shape", "levels", "num_classes"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("data.energy", "model.init_args.energy", apply_on="instantiate")  # where both have one
        for part in ("data", "model"):
            parser.link_arguments("seed_everything", f"{part}.init_args.seed", int)

    def before_instantiate_classes(self) -> None:
        config = self.config
        if config.experiment is None:
            config.experiment = experiment_of(config.config)
        if config.ckpt_path == "last":
            config.ckpt_path = _last_checkpoint(Path(config.trainer.default_root_dir) / config.experiment)
        self.resume_from, config.ckpt_path = config.ckpt_path, None  # config.yaml is to start a run, not to go on
        self.version = self._version_of(self.resume_from)
        self.save_config_kwargs = {"overwrite": self.version is not None}
        if ".." in Path(config.experiment).parts or Path(config.experiment).is_absolute():
            raise VaeflowError(
                f"--experiment is {config.experiment}, expected a name, or a path below the runs' folder."
            )
        given = (config.trainer.devices, config.trainer.num_nodes)
        config.trainer.devices, config.trainer.num_nodes = as_launched(*given)
        epochs, every = config.trainer.max_epochs, config.trainer.check_val_every_n_epoch
        if epochs and every and 0 < epochs < every:
            every = config.trainer.check_val_every_n_epoch = epochs  # a short run is validated at its end
        if str(config.trainer.precision) in ("16-true", "bf16-true"):
            raise VaeflowError(
                f"trainer.precision is {config.trainer.precision}, too coarse for a likelihood: take 16-mixed or "
                "bf16-mixed, which keep the weights and the logarithms whole."
            )
        if config.trainer.gradient_clip_val == TRAINER_DEFAULTS["gradient_clip_val"] and (
            "fsdp" in str(config.trainer.strategy) or str(config.trainer.precision) == "16-mixed"
        ):
            config.trainer.gradient_clip_val = None  # Lightning cannot, nor with a fused optimizer's scaled gradients
        for name in ("check_val_every_n_epoch", "val_check_interval"):
            if (given := config.trainer[name]) is not None and not isinstance(given, (str, dict)) and given <= 0:
                raise VaeflowError(
                    f"trainer.{name} is {given}, expected more than 0: without validation there is no best checkpoint."
                )
        if epochs == 0:
            raise VaeflowError("trainer.max_epochs is 0, expected at least 1.")
        if epochs is not None and every and epochs > 0 and epochs % every:
            raise VaeflowError(
                f"trainer.max_epochs is {epochs}, expected a multiple of trainer.check_val_every_n_epoch, {every}: "
                f"the last epochs would not be validated; take {epochs - epochs % every}, or "
                "--trainer.check_val_every_n_epoch 1."
            )

    def _version_of(self, ckpt_path: str | None) -> str | None:
        """The run folder of this experiment that a checkpoint lies in, which the resumed run writes to again."""
        if ckpt_path is None:
            return None
        run = Path(ckpt_path).resolve().parent.parent
        experiment = Path(self.config.trainer.default_root_dir, self.config.experiment).resolve()
        return run.name if run.parent == experiment else None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config
        if config.trainer.logger in (None, True):
            root = config.trainer.default_root_dir
            version = self._version(root)
            kwargs["logger"] = TensorBoardLogger(root, config.experiment, version, default_hp_metric=False)
        elif config.trainer.logger is False:  # without one Lightning keeps everything in the trainer's own folder
            root = config.trainer.default_root_dir
            kwargs["default_root_dir"] = str(Path(root, config.experiment, self._version(root) or ""))
        plugins = config.trainer.plugins
        plugins = plugins if isinstance(plugins, list) else [] if plugins is None else [plugins]
        if not any("CheckpointIO" in str(plugin) or "Async" in str(plugin) for plugin in plugins):
            kwargs["plugins"] = [*plugins, Files()]
        self.checkpoints = Checkpoints(config.checkpoint_every)
        # Lightning makes no timer of its own for max_time where there is one
        callbacks: list[Any] = [self.checkpoints, Curves(), Unchanged(), Timer(config.trainer.max_time)]
        if config.trainer.enable_progress_bar in (None, True):
            callbacks.append(Progress())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        try:
            trainer = super().instantiate_trainer(**kwargs)
            if isinstance(trainer.strategy, DDPStrategy):  # no copy of the gradient, and none of buffers at every step
                options = {"gradient_as_bucket_view": True, "broadcast_buffers": False}
                trainer.strategy._ddp_kwargs = {**options, **trainer.strategy._ddp_kwargs}
            return trainer
        except BaseException as error:
            self.discard_empty_run()
            if isinstance(error, ValueError):
                raise VaeflowError(f"the trainer cannot be made: {error}") from error
            raise

    def _version(self, root: str) -> str | None:
        """The name of this run's folder."""
        if self.version is None:
            self.version = self._new_version(Path(root, self.config.experiment))
        return self.version

    def _new_version(self, experiment: Path) -> str | None:
        """A folder for this run alone, made by the first process; those that it starts find its name, and others have
        no use for it."""
        if VERSION not in os.environ and getattr(rank_zero_only, "rank", 0) == 0:
            os.environ[VERSION] = new_version(experiment)
            self.made = experiment / os.environ[VERSION]
        return os.environ.get(VERSION)

    made: Path | None = None
    """The folder that this process made."""

    def discard_empty_run(self) -> None:
        """Remove the folder of a run that could not begin: one without a config, which the first batch writes."""
        if self.made is not None:
            del os.environ[VERSION]
            if not (self.made / "config.yaml").is_file():
                shutil.rmtree(self.made, ignore_errors=True)
            self.made = None


class SaveConfig(SaveConfigCallback):
    """``config.yaml`` and ``run.json``, written when the first batch begins: a run that cannot go on keeps its own."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None: ...

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.already_saved:
            return
        super().setup(trainer, pl_module, "fit")
        folder = trainer.log_dir  # which all processes have to ask for
        if trainer.is_global_zero and folder is not None:
            seed, world_size = self.config.seed_everything, trainer.world_size
            device, step = trainer.strategy.root_device, trainer.global_step
            named = [_yaml(Path(str(path))) for path in self.config.config or []]  # one at most
            record_start(Path(folder, "run.json"), device, seed=seed, world_size=world_size, step=step, config=named)


def _config_first(arguments: list[str]) -> list[str]:
    """The arguments with ``--config`` before all others, which change its keys wherever they were typed; keys are spelt
    with underscores, and may be typed with hyphens."""
    arguments = [re.sub(r"^--[\w.-]+", lambda key: "--" + key[0][2:].replace("-", "_"), word) for word in arguments]
    configs: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-c", "--config"):
            configs += [argument, *([value] if (value := next(rest, None)) is not None else [])]
        else:
            (configs if argument.startswith("--config=") else others).append(argument)
    return configs + others


class Help(DefaultHelpFormatter):
    """Spares the reader the types of Lightning's own options, half a page each."""

    def _get_help_string(self, action: Any) -> str:
        return action.help if action.dest.startswith("trainer.") else super()._get_help_string(action)


class NamedConfig(ActionConfigFile):
    """``--config``: a path, or the name of a file in ``configs/``."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        if cfg.get(self.dest):
            raise TypeError("there are two configs, expected one: what it says is changed by --KEY VALUE.")
        path = find_config(values)
        if (path.parent / "checkpoints").is_dir() or (path.parent / "run.json").is_file():
            check_config(_yaml(path), str(path), trust=_trusted(sys.argv[1:]))
        super().__call__(parser, cfg, str(path), option_string)


def _yaml(path: Path) -> Any:
    """What a file holds."""
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VaeflowError(f"{path} is no YAML ({str(error).splitlines()[0]}).") from None


def _trusted(arguments: list[str]) -> list[str]:
    """The packages after ``--trust``, wherever it was typed: a config is read before it."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", nargs="*", action="extend", default=[])
    return list(parser.parse_known_args(arguments)[0].trust)


def _last_checkpoint(folder: Path) -> str | None:
    """The newest ``last.ckpt`` of an experiment; where there is none yet, its run begins."""
    found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found and getattr(rank_zero_only, "rank", 0) == 0:
        print(f"there is no last.ckpt in {folder} to go on from: the run begins anew.", file=sys.stderr)
    return str(found[-1]) if found else None
