"""The command line of ``train.py``: LightningCLI, configs that have names, a folder for each run."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, DefaultHelpFormatter, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt, restricted_number_type
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from vaeflow.callbacks import Pictures
from vaeflow.commands.configs import config_names, experiment_of, find_config, plain, read_config
from vaeflow.commands.messages import is_ours
from vaeflow.commands.trainer_arguments import IN_HELP, callbacks_of, check_arguments, check_trainer, plugins_of
from vaeflow.errors import VaeflowError
from vaeflow.files import whole
from vaeflow.machine.launch import as_launched
from vaeflow.records.checkpoint import check_config
from vaeflow.records.curves import loggers_of
from vaeflow.records.provenance import record_start
from vaeflow.records.runs import RunFolder

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<=", 2**32 - 1)])  # numpy's


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
                action.help = IN_HELP.get(key, action.help)
        titles = {
            "trainer": "Training (more keys: --print_config)",
            "model": "Model",
            "data": "Data",
            "pictures": "Pictures",
        }
        for name, title in titles.items():
            self.parser.groups[name].title = title  # type: ignore[index]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = plain(parser.parse_args(_config_first(sys.argv[1:] if args is None else args)))

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

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainingCLI:
        """Itself: jsonargparse hangs it on a model's parts, of which averages of weights are copies, and its trainer
        may have started processes."""
        return self

    def before_instantiate_classes(self) -> None:
        config = self.config
        if config.experiment is None:
            config.experiment = experiment_of(config.config)
        self.folder = RunFolder(config.trainer.default_root_dir, config.experiment, config.ckpt_path)
        config.trainer.default_root_dir, config.experiment = str(self.folder.root), self.folder.experiment
        config.ckpt_path = None  # config.yaml is to start a run, not to go on
        config.trainer.devices, config.trainer.num_nodes = as_launched(config.trainer.devices, config.trainer.num_nodes)
        check_arguments(config.trainer)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config, made = self.config, self.config_init.trainer
        try:
            self.folder.make()
            callbacks, self.checkpoints = callbacks_of(
                made.callbacks, config.trainer, self.folder, config.checkpoint_every
            )
            if not config.trainer.fast_dev_run:
                callbacks.append(SaveStart(self.parser, config, self.folder))
            self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
            kwargs["logger"] = loggers_of(made.logger, self.folder)
            kwargs["plugins"] = plugins_of(made.plugins)
            kwargs["default_root_dir"] = str(self.folder.path)
            trainer = super().instantiate_trainer(**kwargs)
            check_trainer(trainer, self.model)
            return trainer
        except BaseException as error:
            self.folder.discard_if_unused()
            is_said = isinstance(error, (VaeflowError, MisconfigurationException))
            if not isinstance(error, Exception) or is_said or is_ours(error):
                raise
            what = f"the environment has no {error}" if isinstance(error, KeyError) else str(error)
            raise VaeflowError(f"the trainer cannot be made: {what or type(error).__name__}") from error


class SaveStart(Callback):
    """``config.yaml`` and ``run.json``, written when the first batch begins: a run that cannot go on keeps its own.

    Args:
        parser, config: what the run was started with.
        folder: of the run.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, folder: RunFolder) -> None:
        self.parser, self.config, self.folder = parser, config, folder
        self._is_saved = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._is_saved or not trainer.is_global_zero:
            return
        self._is_saved = True
        with whole(self.folder.path / "config.yaml") as file:
            file.write(self.parser.dump(self.config, skip_none=False).encode())
        seed, world_size = self.config.seed_everything, trainer.world_size
        device, step = trainer.strategy.root_device, trainer.global_step
        named = [read_config(Path(str(path))) for path in self.config.config or []]  # one at most
        path = self.folder.path / "run.json"
        record_start(path, device, seed=seed, world_size=world_size, step=step, config=named)


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
    """Spares the reader most of Lightning's own options, and the types of the others, half a page each."""

    def add_argument(self, action: Any) -> None:
        """Called for each option; one without help would be left out of config.yaml as well."""
        section, _, key = action.dest.partition(".")
        if section != "trainer" or key in IN_HELP:
            super().add_argument(action)

    def _get_help_string(self, action: Any) -> str:
        return action.help if action.dest.startswith("trainer.") else super()._get_help_string(action)


class NamedConfig(ActionConfigFile):
    """``--config``: a path, or the name of a file in ``configs/``."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        if cfg.get(self.dest):
            raise TypeError("there are two configs, expected one: what it says is changed by --KEY VALUE.")
        path = find_config(values)
        is_of_a_run = (path.parent / "checkpoints").is_dir() or (path.parent / "run.json").is_file()
        try:
            config = read_config(path)
        except VaeflowError as error:
            if is_of_a_run:
                raise
            raise TypeError(str(error)) from None  # the user's own, and so an error of usage
        if is_of_a_run:
            check_config(config, str(path), trust=_trusted(sys.argv[1:]))
        if not isinstance(config, dict):
            raise TypeError(f"{path} holds no keys and values, expected those of a config, such as model and data.")
        super().__call__(parser, cfg, yaml.safe_dump(config), option_string)
        cfg[self.dest] = [path]


def _trusted(arguments: list[str]) -> list[str]:
    """The packages after ``--trust``, wherever it was typed: a config is read before it."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", nargs="*", action="extend", default=[])
    return list(parser.parse_known_args(arguments)[0].trust)
