"""``train.py``: train a model, evaluate its best checkpoint, and say what came out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, StochasticWeightAveraging, Timer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import DoublePrecision
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from vaeflow.callbacks import Checkpoints
from vaeflow.commands.cli import TrainingCLI
from vaeflow.commands.messages import Parser
from vaeflow.commands.trainer_arguments import DEFAULTS
from vaeflow.data import DataModule
from vaeflow.errors import Stopped, VaeflowError
from vaeflow.evaluation.doubts import doubts_before, hints_before
from vaeflow.evaluation.evaluate import check_fits, evaluate, evaluation_trainer
from vaeflow.evaluation.results import table, write_results
from vaeflow.machine.launch import check_devices, end_others
from vaeflow.models import LikelihoodModel
from vaeflow.records.checkpoint import KEY, differences, foreign_packages, load_weights, read, weights_of
from vaeflow.records.curves import continue_curves
from vaeflow.records.identity import Identity


def train() -> None:
    """Train a model from a config, evaluate its best checkpoint on the test split, and say what came out."""
    cli = TrainingCLI(
        LikelihoodModel,
        DataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        run=False,
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"description": train.__doc__, "allow_abbrev": False, "prog": "train.py"},
        trainer_defaults=DEFAULTS,
        seed_everything_default=0,
        save_config_callback=None,
    )
    try:
        _train(cli, cli.folder.path)
    finally:
        cli.folder.discard_if_unused()


def _train(cli: TrainingCLI, folder: Path) -> None:
    trainer: Any = cli.trainer
    model, data = cli.model, cli.datamodule
    steps_before, doubts = 0, list[str]()
    check_fits(model, data)
    check_devices(trainer)
    model.compile_losses, model.on_nonfinite = cli.config.compile, cli.config.on_nonfinite
    if trainer.world_size > 1 and not model.is_trained_by_gradient:
        raise VaeflowError(f"{type(model).__name__} is fitted in closed form, by one process: leave devices at 1.")
    data.setup("fit")
    resume_from = cli.folder.resume_from
    if resume_from is not None:
        steps_before = _check_same(cli, resume_from)
    if trainer.is_global_zero:
        continue_curves(trainer.loggers, steps_before, cli.folder.is_resumed)
    if trainer.is_global_zero:
        size = f"{sum(p.numel() for p in model.parameters()):,} parameters"
        print(f"{cli.config.experiment}: {type(model).__name__} of {size} on {data.label}, in {folder}")
        doubts = list(doubts_before(model, data))
        for warning in (*hints_before(model, data), *doubts):
            print(f"warning: {warning}", file=sys.stderr)
    with stoppable(trainer, lambda: _how_to_resume(cli, folder), cli.checkpoints):
        try:
            trainer.fit(model, datamodule=data, ckpt_path=resume_from, weights_only=True)
        except ValueError as error:
            if "val_check_interval" in str(error):  # which depends on the data
                raise VaeflowError(f"the trainer cannot validate so: {str(error).strip()}") from error
            raise
        except MisconfigurationException as error:
            if trainer.overfit_batches and "limit_train_batches" in str(error):  # which Lightning sets to the same
                raise VaeflowError(
                    f"trainer.overfit_batches is {trainer.overfit_batches}, less than one of the batches."
                ) from error
            raise
    if trainer.is_global_zero and (reason := _why_stopped(trainer)):
        print(f"training ended after epoch {trainer.current_epoch}, step {trainer.global_step}: {reason}.")
    averaging = [c for c in trainer.callbacks if isinstance(c, StochasticWeightAveraging)]
    if trainer.is_global_zero and not trainer.fast_dev_run and any(not callback.n_averaged for callback in averaging):
        print("warning: StochasticWeightAveraging has averaged nothing: training ended before it.", file=sys.stderr)
    if resume_from and trainer.global_step == steps_before and trainer.is_global_zero:
        print(f"{resume_from} is at step {steps_before}, the end of this run: there was nothing left to train.")
    if trainer.fast_dev_run:
        print("nothing is kept of a fast_dev_run, and nothing evaluated.")
    elif cli.config.num_samples != 0:
        finish(cli, folder, doubts)
    elif trainer.is_global_zero:
        print(f"{'checkpoint':<12}{cli.checkpoints.to_evaluate(trainer)}")


def _why_stopped(trainer: Any) -> str | None:
    """Why a training has ended before its last epoch, if a callback has asked for it."""
    if not trainer.should_stop or trainer.current_epoch == trainer.max_epochs:
        return None
    for callback in trainer.callbacks:
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "the time limit was reached"
        if isinstance(callback, EarlyStopping) and (reason := getattr(callback, "stopping_reason_message", None)):
            return f"EarlyStopping: {reason.partition(' Signaling')[0].strip(' .')}"
    return "a callback asked for it"


def _check_same(cli: TrainingCLI, path: str) -> int:
    """Refuse to resume what was made with other arguments of model or data; how many steps were trained."""
    checkpoint = read(path)
    if not {"loops", "optimizer_states"} <= checkpoint.keys():
        raise VaeflowError(f"{path} holds the weights alone, without the state of a training: nothing can be resumed.")
    done, epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"], cli.trainer.max_epochs
    if epochs is not None and 0 < epochs < done:
        raise VaeflowError(f"{path} was trained for {done} epochs, more than trainer.max_epochs, {epochs}.")
    begun = checkpoint["callbacks"].get("StochasticWeightAveraging", {}).get("n_averaged", 0) > 0
    if begun and not cli.checkpoints.is_averaged(checkpoint["global_step"]):
        raise VaeflowError(
            f"{path} is of a run that averages its last epochs, which Lightning cannot go on with: start anew, or take "
            "EMAWeightAveraging or WeightAveraging, whose runs can be resumed."
        )
    load_weights(cli.model, checkpoint, path)  # for its errors: Lightning loads the whole state later
    is_other = cli.datamodule.difference_from(Identity.from_description(checkpoint[KEY].get("identity")))
    for part, mine in (("data", cli.datamodule.description), ("model", cli.model.description)):
        if part == "model" and is_other:
            raise VaeflowError(f"{path} cannot be resumed: {is_other}; resume with those, or start anew.")
        for key, before, now in differences(checkpoint[KEY][part], mine, part):
            if key.rpartition(".")[2] not in ("root", "path"):
                raise VaeflowError(
                    f"{path} was trained with {key} = {before}, now it is {now}: resume with the same, or start anew."
                )
    loop = checkpoint["loops"]["fit_loop"]
    if loop["epoch_loop.batch_progress"]["is_last_batch"]:  # a validation comes before the epoch counts as completed
        done = loop["epoch_progress"]["current"]["started"]
    is_done = (epochs is not None and 0 < epochs == done) or 0 < cli.trainer.max_steps <= checkpoint["global_step"]
    if is_done and not cli.folder.is_resumed:
        raise VaeflowError(
            f"{path} is at the end of this run, at step {checkpoint['global_step']}: nothing is left to train in "
            f"another folder. Train longer, or evaluate it: evaluate.py --ckpt {quote(str(path))}"
        )
    return int(checkpoint["global_step"])


@contextmanager
def stoppable(trainer: Trainer, message: Callable[[], str], checkpoints: Checkpoints | None = None) -> Iterator[None]:
    """Lightning turns Ctrl-C into exit code 1; here it says what to do next and is Ctrl-C again, or what else
    ``checkpoints`` were asked to stop by. An error ends the other processes as well."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit as stop:
        end_others(trainer)
        number = signal.SIGTERM if isinstance(stop, SIGTERMException) else signal.SIGINT
        raise Stopped(message(), checkpoints.stopped_by if checkpoints else number) from None
    except Exception:
        end_others(trainer)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def finish(cli: TrainingCLI, folder: Path, doubts: list[str]) -> None:
    """Evaluate the best checkpoint of a run; print and keep the results, with the doubts there were before."""
    trainer: Any = cli.trainer
    data = cli.datamodule
    best = cli.checkpoints.to_evaluate(trainer)
    checkpoint = read(best)
    load_weights(cli.model, checkpoint, best)
    again = f"python scripts/evaluate.py --ckpt {quote(str(best))}"
    if cli.model.kind in ("importance-sampled", "dequantised"):
        again += f" --num-samples {max(100, 5 * (cli.config.num_samples or cli.model.evaluation_samples))}"
    if packages := foreign_packages(checkpoint[KEY]):
        again += f" --trust {' '.join(packages)}"
    last = best.with_name("last.ckpt")
    stopped = f"stopped while evaluating; to do it, add --ckpt_path {quote(str(last))} to the same command."
    with stoppable(trainer, lambda: stopped):
        seed, memory_mb = cli.config.evaluation_seed, cli.config.memory_mb
        tester = _evaluation_trainer(cli)
        results = evaluate(cli.model, data, cli.config.num_samples, seed=seed, memory_mb=memory_mb, trainer=tester)
    timer = next(c for c in trainer.callbacks if isinstance(c, Timer))
    results.update(
        checkpoint=str(best),
        weights=weights_of(best, checkpoint),
        training_seed=cli.config.seed_everything,
        training_seconds=timer.time_elapsed("train"),
        doubts=list(dict.fromkeys([*results["doubts"], *doubts])),  # a flow may be wrong where training begins or ends
    )
    if not trainer.is_global_zero:
        return
    write_results(folder / "results.json", results)
    names = ("nll", "bpd", "elbo", "kl", "reconstruction", "effective_sample_size", "active_units")
    metrics = {f"test/{name}": results[name] for name in names if results[name] is not None}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(_short_description(cli, results), metrics, step=checkpoint["global_step"])
        else:
            logger.log_metrics(metrics, checkpoint["global_step"])
        logger.finalize("success")
    print(f"\n{table(results)}\n")
    rows = {
        "checkpoint": best,
        "results": folder / "results.json",
        "evaluate": again,
    }
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            rows["curves"] = f"tensorboard --logdir {quote(str(logger.save_dir))}"
        elif isinstance(logger, CSVLogger):
            rows.setdefault("curves", str(Path(logger.log_dir, "metrics.csv")))
    print("\n".join(f"{name:<12}{value}" for name, value in rows.items()))


def _evaluation_trainer(cli: TrainingCLI) -> Trainer:
    """A trainer in the same processes that knows nothing of the training's callbacks, loggers, plugins and limits."""
    made = cli.config_init.trainer
    return evaluation_trainer(
        accelerator=made.accelerator,
        devices=made.devices,
        num_nodes=made.num_nodes,
        strategy="ddp" if cli.trainer.world_size > 1 else "auto",
        precision="64-true" if isinstance(cli.trainer.precision_plugin, DoublePrecision) else "32-true",
        **({} if made.enable_progress_bar in (None, True) else {"callbacks": [], "enable_progress_bar": False}),
    )


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
        "learning_rate": cli.trainer.optimizers[0].defaults.get("lr", 0.0),
        "seed": cli.config.seed_everything,
    }


def _how_to_resume(cli: TrainingCLI, folder: Path) -> str:
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "stopped before the first checkpoint."
    step = cli.trainer.global_step
    return f"stopped after step {step}; to go on, add --ckpt_path {quote(str(last))} to the same command."
