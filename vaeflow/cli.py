"""The command line: LightningCLI, configs that have names, a folder for each run, errors of one sentence."""

from __future__ import annotations

import signal
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from jsonargparse import ActionConfigFile, DefaultHelpFormatter
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger

import vaeflow.data
import vaeflow.models
from vaeflow.callbacks import Checkpoints, Curves, Pictures, Progress
from vaeflow.checkpoint import KEY, differences, load, load_data, load_weights, read
from vaeflow.configs import config_names, experiment_of, find_config
from vaeflow.errors import VaeflowError
from vaeflow.evaluation.evaluate import best_accelerator, evaluate, table, write_json
from vaeflow.messages import Parser

TRAINER_DEFAULTS = {
    "accelerator": best_accelerator(),
    "devices": 1,
    "default_root_dir": "runs",
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,  # it pads; the data modules share out whole batches themselves
}
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

# ------------------------------------------------------------------------------------------------------ train.py


def train() -> None:
    """Train a model from a config, evaluate its best checkpoint on the test split, and say what came out."""
    cli = TrainingCLI(
        vaeflow.models.LikelihoodModel,
        vaeflow.data.DataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        run=False,
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"description": train.__doc__, "allow_abbrev": False, "prog": "train.py"},
        trainer_defaults=TRAINER_DEFAULTS,
        seed_everything_default=0,
    )
    trainer: Any = cli.trainer
    model, data, folder = cli.model, cli.datamodule, Path(trainer.log_dir or ".")
    steps_before = 0
    if cli.resume_from is None:
        data.setup("fit")
    else:
        steps_before = _check_same(cli, cli.resume_from)
    if trainer.is_global_zero:
        size = f"{sum(p.numel() for p in model.parameters()):,} parameters"
        print(f"{cli.config.experiment}: {type(model).__name__} of {size} on {type(data).__name__}, in {folder}")
    with _stoppable(lambda: _how_to_resume(cli, folder)):
        trainer.fit(model, datamodule=data, ckpt_path=cli.resume_from, weights_only=True)
    if cli.resume_from and trainer.global_step == steps_before and trainer.is_global_zero:
        print(f"{cli.resume_from} is at step {steps_before}, the end of this run: there was nothing left to train.")
    if cli.config.num_samples and not trainer.fast_dev_run:
        finish(cli, folder)


def _check_same(cli: TrainingCLI, path: str) -> int:
    """Refuse to resume what was made with other arguments of model or data; how many steps were trained."""
    checkpoint = read(path)
    load_weights(cli.model, checkpoint, path)  # for its errors: Lightning loads the whole state later
    for part, mine in (("model", cli.model.description), ("data", cli.datamodule.description)):
        for key, before, now in differences(checkpoint[KEY][part], mine, part):
            if key.rpartition(".")[2] not in ("root", "path"):
                raise VaeflowError(
                    f"{path} was trained with {key} = {before}, now it is {now}: resume with the same, or start anew."
                )
    return int(checkpoint["global_step"])


@contextmanager
def _stoppable(message: Callable[[], str]) -> Iterator[None]:
    """Lightning turns Ctrl-C into exit code 1; here it says what to do next and is Ctrl-C again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt(message()) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def finish(cli: TrainingCLI, folder: Path) -> None:
    """Evaluate the best checkpoint of a run; print and keep the results."""
    trainer: Any = cli.trainer
    data = cli.datamodule
    checkpoints = next(c for c in trainer.callbacks if isinstance(c, Checkpoints))
    best = Path(checkpoints.best_model_path or checkpoints.last_model_path)
    checkpoint = read(best)
    load_weights(cli.model, checkpoint, best)
    again = f"python scripts/evaluate.py --ckpt {quote(str(best))} --num-samples 5000"
    with _stoppable(lambda: f"stopped while evaluating; to evaluate again: {again}"):
        seed, memory_mb = cli.config.evaluation_seed, cli.config.memory_mb
        results = evaluate(cli.model, data, cli.config.num_samples, seed=seed, memory_mb=memory_mb, trainer=trainer)
    timer = next(c for c in trainer.callbacks if isinstance(c, Timer))
    results.update(
        checkpoint=str(best), training_seed=cli.config.seed_everything, training_seconds=timer.time_elapsed("train")
    )
    if not trainer.is_global_zero:
        return
    write_json(folder / "results.json", results)
    if isinstance(trainer.logger, TensorBoardLogger):
        names = ("nll", "bpd", "elbo", "kl", "reconstruction", "effective_sample_size", "active_units")
        metrics = {f"test/{name}": results[name] for name in names if results[name] is not None}
        trainer.logger.log_hyperparams(_short_description(cli, results), metrics, step=checkpoint["global_step"])
        trainer.logger.finalize("success")
    print(f"\n{table(results)}\n")
    rows = {
        "checkpoint": best,
        "results": folder / "results.json",
        "evaluate": again,
        "curves": f"tensorboard --logdir {quote(str(trainer.default_root_dir))}",
    }
    print("\n".join(f"{name:<12}{value}" for name, value in rows.items()))


def _short_description(cli: TrainingCLI, results: dict[str, Any]) -> dict[str, Any]:
    """What the hparams tab shows of a run: the same keys for every model, so that it can compare them."""
    flow = cli.model.hparams.get("flow")
    return {
        "model": results["model"],
        "flow": flow["class_path"].rpartition(".")[2] if isinstance(flow, dict) else "none",
        "objective": results["objective"],
        "data": results["data"],
        "measure": results["measure"],
        "kind": results["kind"],
        "latent_features": results["latent_features"],
        "parameters": results["num_parameters"],
        "epochs": cli.trainer.current_epoch,
        "batch_size": cli.datamodule.batch_size,
        "learning_rate": cli.trainer.optimizers[0].defaults["lr"],
        "seed": cli.config.seed_everything,
    }


def _how_to_resume(cli: TrainingCLI, folder: Path) -> str:
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "stopped before the first checkpoint."
    step = cli.trainer.global_step
    return f"stopped after step {step}; to go on, add --ckpt_path {quote(str(last))} to the same command."


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
            type=NonNegativeInt,
            default=self.seed_everything_default,
            help="seed of weights, order and noise",
        )
        add("--experiment", type=str | None, default=None, help="name of the run's folder, by default the config's")
        add("--ckpt_path", type=str | None, default=None, help="resume from this checkpoint, or from the `last` run's")
        add(
            "--num_samples",
            type=NonNegativeInt,
            default=1000,
            help="importance samples for each test example; 0: no evaluation",
        )
        add("--evaluation_seed", type=NonNegativeInt, default=0, help="seed of the evaluation's noise")
        add("--memory_mb", type=PositiveFloat, default=256.0, help="what one chunk of the evaluation computes, in MiB")
        add("--debug", action="store_true", help="show the traceback of an error")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Pictures, "pictures")
        for name in ("shape", "levels", "num_classes"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        for part in ("data", "model"):
            parser.link_arguments("seed_everything", f"{part}.init_args.seed", int)

    def before_instantiate_classes(self) -> None:
        config = self.config
        if config.experiment is None:
            config.experiment = experiment_of(config.config)
        if config.ckpt_path == "last":
            config.ckpt_path = str(_last_checkpoint(Path(config.trainer.default_root_dir) / config.experiment))
        self.resume_from, config.ckpt_path = config.ckpt_path, None  # config.yaml is to start a run, not to go on
        self.version = self._version_of(self.resume_from)
        self.save_config_kwargs = {"overwrite": self.version is not None}
        epochs, every = config.trainer.max_epochs, config.trainer.check_val_every_n_epoch
        if str(config.trainer.precision) in ("16-true", "bf16-true"):
            raise VaeflowError(
                f"trainer.precision is {config.trainer.precision}, too coarse for a likelihood: take 16-mixed or "
                "bf16-mixed, which keep the weights and the logarithms whole."
            )
        if epochs == 0:
            raise VaeflowError("trainer.max_epochs is 0, expected at least 1.")
        if epochs is not None and every and epochs > 0 and epochs % every:
            raise VaeflowError(
                f"trainer.max_epochs is {epochs}, expected a multiple of trainer.check_val_every_n_epoch, {every}: "
                "the last epochs would not be validated; for a short run add --trainer.check_val_every_n_epoch 1."
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
            kwargs["logger"] = TensorBoardLogger(root, config.experiment, self.version, default_hp_metric=False)
        elif config.trainer.logger is False:
            self.save_config_callback = None
        # Lightning makes no timer of its own for max_time where there is one
        callbacks: list[Any] = [Checkpoints(), Curves(), Timer(config.trainer.max_time)]
        if config.trainer.enable_progress_bar in (None, True):
            callbacks.append(Progress())
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        try:
            return super().instantiate_trainer(**kwargs)
        except ValueError as error:
            raise VaeflowError(f"the trainer cannot be made: {error}") from error


def _config_first(arguments: list[str]) -> list[str]:
    """The arguments with ``--config`` before all others, which change its keys wherever they were typed."""
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
        super().__call__(parser, cfg, str(find_config(values)), option_string)


def _last_checkpoint(folder: Path) -> Path:
    """The newest ``last.ckpt`` of an experiment."""
    found = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise VaeflowError(f"there is nothing to resume: no version_*/checkpoints/last.ckpt in {folder}.")
    return found[-1]


# --------------------------------------------------------------------------------------------------- evaluate.py


def evaluate_checkpoint() -> None:
    """Estimate the log-likelihood of a checkpoint's model by importance sampling."""
    parser = Parser(prog="evaluate.py", description=evaluate_checkpoint.__doc__ or "", allow_abbrev=False)
    add = parser.add_argument
    add("--ckpt", type=str, required=True, help="the checkpoint")
    add("--num-samples", type=PositiveInt, default=1000, help="K, importance samples for each example")
    add("--split", type=str, default="test", help="train, val or test")
    add("--json", type=str | None, default=None, help="write the results to this file")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add("--memory-mb", type=PositiveFloat, default=256.0, help="what one chunk of samples may compute, in MiB")
    add("--batch-size", type=PositiveInt | None, default=None, help="examples at once; by default as in training")
    add("--limit", type=PositiveInt | None, default=None, help="only so many examples, the first ones")
    add("--root", type=str | None, default=None, help="folder of the data, if they have moved")
    add("--path", type=str | None, default=None, help="file of the data, if it has moved")
    add("--trust", type=str, nargs="*", default=[], help="further packages whose classes the checkpoint may name")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    if args.json is not None and Path(args.json).is_dir():
        raise VaeflowError(f"--json {args.json} is a folder, expected a file, such as {Path(args.json, 'out.json')}.")
    overrides = {"root": args.root, "path": args.path, "batch_size": args.batch_size}
    model = load(args.ckpt, args.trust)
    data = load_data(args.ckpt, args.trust, **{name: value for name, value in overrides.items() if value is not None})
    with _stoppable(lambda: "stopped."):
        results = evaluate(model, data, args.num_samples, args.split, args.seed, args.memory_mb, args.limit)
    timer = read(args.ckpt)["callbacks"].get("Timer", {"time_elapsed": {}})
    results.update(checkpoint=args.ckpt, training_seconds=timer["time_elapsed"].get("train"))
    print(f"\n{table(results)}")
    if args.json is not None:
        write_json(Path(args.json), results)
        print(f"\nresults     {args.json}")
