"""How every model is trained: steps and their log, the optimizer, clipping, and what a checkpoint keeps."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import DoublePrecision, MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

import vaeflow
from vaeflow.errors import VaeflowError, check_tensor, check_values
from vaeflow.estimate import Means
from vaeflow.models.finite import is_finite, where, whose
from vaeflow.nets.dropout import dropout_layers
from vaeflow.nets.initialisation import DataDependent, initialising
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import KEY, class_of
from vaeflow.records.identity import Identity
from vaeflow.tracing import unwrapped

SCHEDULE_LENGTHS = ("T_max", "total_iters")
SUMS = f"{KEY}_sums"


class TrainedModel(LightningModule, ABC):
    """A module that is trained by :meth:`losses`, of batches ``(x, y, index)`` and noise that is a function of seed,
    stage, epoch and example.

    Args:
        shape, levels: of the data.
        optimizer, lr_scheduler: make the optimizer, and its schedule for a number of steps.
        seed: of the training noise.
    """

    logged: tuple[str, ...] = ("objective", "nll")
    """The terms of each example that :meth:`losses` gives, whose means are logged."""
    compile_losses = False
    """Whether training compiles :meth:`losses` with torch.compile: a setting of a run, not of a model."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What is done where a loss or a gradient is NaN or infinite: stop the run, or leave out that step."""
    trained_on: Identity | None = None
    """Of the data that it was trained on, where a checkpoint says so."""
    averaged_by: str | None = None
    """The callback whose averages of weights the checkpoint holds that is just being written."""
    started: Tensor
    """Whether :meth:`initialise` has been called."""
    zero: Tensor
    """Knows the device and the number type also where another module holds the model, whose moves Lightning misses."""

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int | None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        self.dimension = math.prod(self.shape)
        self.optimizer, self.lr_scheduler, self.seed = optimizer, lr_scheduler, seed
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("zero", torch.zeros(()), persistent=False)
        self.train_means, self.val_means = Means(self.logged), Means(self.logged)
        self.gradient_means = Means(["gradient_norm", "clipped"])

    @property  # type: ignore[misc]
    def dtype(self) -> Any:
        """The number type of the parameters."""
        return self.zero.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.zero.device

    @abstractmethod
    def context_of(self, y: Tensor) -> Tensor | None:
        """Labels ``(batch,)`` → the context ``(batch, context_features)``, None for a model that has none."""

    @property
    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Class and arguments in plain words, from which a checkpoint's model is built again."""

    @abstractmethod
    def losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and what is logged of each example: ``(batch,)`` by the names in ``logged``."""

    def initialise(self, data: Any) -> None:
        """Set what depends on the training data, before training: what a subclass sets, and then whatever is
        :class:`~vaeflow.nets.initialisation.DataDependent`, by one pass over the first batch of all processes.

        Args:
            data: a :class:`~vaeflow.data.base.DataModule`, set up.
        """
        if all(part.started for part in self.modules() if isinstance(part, DataDependent)):
            return
        x, y, index = (part.to(self.device) for part in data.first_batch())
        with initialising(self):
            self.losses(x, Noise(self.seed, "train, once", 0, index).watched(), self.context_of(y))

    def refresh(self, data: Any) -> None:
        """Set what is a statistic of the whole training set and changes while the model trains: called before each
        validation, and before a checkpoint is written."""

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor | None:
        x, y, index = batch
        noise = Noise(self.seed, "train", self.current_epoch, index).watched()
        context = self.context_of(y)
        self._set_dropout(noise)
        loss, values = self._training_losses(x, noise, context)
        # a GPU would have to finish all that is queued: one step in many is looked at there, if none may be skipped
        self._is_watched = loss.device.type == "cpu" or self._is_logged(batch_index) or self.on_nonfinite == "skip"
        self._losses_again = functools.partial(self._recompute, x, replace(noise, drawn=None), context)
        self._whose = functools.partial(whose, {name: value.detach() for name, value in values.items()}, index)
        if not self._is_watched or torch.isfinite(loss):
            self.train_means.update(**values)
        elif self.on_nonfinite == "stop" and self.trainer.world_size == 1:  # several stop together, by their gradient
            terms = ", ".join(f"{name} {value.detach().mean().item():.4g}" for name, value in values.items())
            raise self._not_finite(f"the loss became {loss.item()}", f" ({terms})")
        if self._is_logged(batch_index):
            self._log_means("train", self.train_means)
            if self.is_trained_by_gradient:
                self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
                self._log_means("train", self.gradient_means)
        return loss if self.is_trained_by_gradient else None

    def _set_dropout(self, noise: Noise | None) -> None:
        """Draw all masks from this noise, or from torch's generator."""
        for layer in self._dropout_layers:
            layer.source = noise

    def _recompute(self, x: Tensor, noise: Noise, context: Tensor | None) -> object:
        """The losses of a step once more, from noise that may be drawn again."""
        self._set_dropout(noise)
        return self.losses(x, noise, context)

    def _training_losses(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The same as :meth:`losses`, compiled if ``compile_losses`` is set and torch can."""
        if self.compile_losses:
            try:
                return _compiled(type(self))(self, self._checked(x), noise, context)
            except RuntimeError as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                self.compile_losses = False
                reason = " ".join(str(error).split()[:20])
                warnings.warn(
                    f"torch.compile failed ({reason}): the losses are computed uncompiled, up to 1.5 times slower.",
                    stacklevel=2,
                )
        return self.losses(x, noise, context)

    @property
    def is_trained_by_gradient(self) -> bool:
        """False of what :meth:`initialise` fits in closed form."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def _is_logged(self, batch_index: int) -> bool:
        """Whether this batch ends a step of the optimizer that Lightning writes down."""
        trainer: Any = self.trainer
        steps = (batch_index + 1) % trainer.accumulate_grad_batches == 0
        return bool(steps and trainer._logger_connector.should_update_logs)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> None:
        x, y, index = batch
        _, values = self.losses(x, Noise(self.seed, "val", 0, index).watched(), self.context_of(y))
        self.val_means.update(**values)

    def on_validation_epoch_start(self) -> None:
        self.refresh(self.trainer.datamodule)  # type: ignore[attr-defined]
        if self.trainer.world_size > 1:
            for buffer in self.buffers():  # such as a net's own running means, which each process has of its part
                dist.broadcast(first := buffer.contiguous(), src=0)
                buffer.copy_(first)

    def on_validation_epoch_end(self) -> None:
        self._log_means("val", self.val_means)

    def _log_means(self, stage: str, metric: Means) -> None:
        sums = metric.state()  # of all processes, which then either all go on, or none
        if not sums["count"]:
            return
        means = dict(zip(metric.names, sums["total"] / sums["count"], strict=True))
        metric.reset()
        if self.levels is not None and "nll" in means:
            means["bpd"] = means["nll"] / (self.dimension * math.log(2))
        self.log_dict({f"{stage}/{name}": value.float() for name, value in means.items()})

    def _checked(self, x: Tensor) -> Tensor:
        """Data ``(batch, *shape)`` that the model can be of; integers as floating-point numbers, real ones as they are,
        since they are standardised in float64 first."""
        check_tensor("x", x)
        if x.shape[1:] != self.shape or not x.dim():
            expected = ", ".join(["batch", *map(str, self.shape)])
            raise VaeflowError(f"x has shape {tuple(x.shape)}, expected ({expected}).")
        if self.dtype in (torch.float16, torch.bfloat16):
            raise VaeflowError(
                f"the model's numbers are {self.dtype}, too coarse for a likelihood: call model.float(), and "
                "torch.autocast for speed."
            )
        x = x if self.levels is None else x.to(self.dtype)
        if self._can_look_at(x):
            check_values("x", unwrapped(x), self.levels)
        return x

    def _can_look_at(self, x: Tensor) -> bool:
        """Whether values may be looked at: not while they are compiled, and not at each step of a training on a GPU,
        which would wait for it, and whose data module has looked at them already."""
        is_queued = x.device.type != "cpu" and self._trainer is not None and self.trainer.training
        return not torch.compiler.is_compiling() and not is_queued

    def _not_finite(self, what: str, more: str = "") -> VaeflowError:
        place = f"at step {self.global_step}, epoch {self.current_epoch + 1}, of {self._whose()}{more}"
        return VaeflowError(
            f"{what} {place}; {where(self, self._losses_again)}: lower the learning rate or clip the gradient more; "
            "earlier checkpoints are kept."
        )

    def configure_optimizers(self) -> Any:
        if not self.is_trained_by_gradient:
            return None
        try:
            optimizer = self.optimizer(self.parameters())
        except (TypeError, ValueError) as error:
            raise VaeflowError(f"model.optimizer cannot be made: {error}.") from error
        trainer: Any = self.trainer if self._trainer is not None else None
        if (
            trainer
            and trainer.gradient_clip_val
            and optimizer.defaults.get("fused")
            and trainer.precision == "16-mixed"
        ):
            raise VaeflowError("fused optimizers cannot clip in half precision: set model.optimizer.fused to false.")
        if self.lr_scheduler is None:
            return optimizer
        cls = class_of(self.lr_scheduler)
        second = list(inspect.signature(cls).parameters)[1]
        if second not in SCHEDULE_LENGTHS:
            raise VaeflowError(
                f"lr_scheduler is called with the optimizer and the number of steps, but the second argument of "
                f"{cls.__name__} is `{second}`: take one with {' or '.join(SCHEDULE_LENGTHS)} there, CosineAnnealingLR "
                "or PolynomialLR."
            )
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise VaeflowError("a schedule of the learning rate needs an end: set trainer.max_epochs or max_steps.")
        return [optimizer], [{"scheduler": self.lr_scheduler(optimizer, int(steps)), "interval": "step"}]

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of the gradient, keep it for the log, and stop or leave out the step where it is not finite.

        Lightning does it where gradients are scaled or shared out between devices, or clipped by value. It would refuse
        fused optimizers in all mixed precision; but bfloat16 has the range of float32, and nothing is scaled."""
        plugin: Any = self.trainer.precision_plugin
        is_whole = type(plugin) in (Precision, DoublePrecision) or (
            type(plugin) is MixedPrecision and plugin.scaler is None
        )
        if not is_whole:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self._is_watched and not torch.isfinite(norm):
            error = self._not_finite(f"the gradient's norm became {norm.item()}")
            if self.on_nonfinite == "stop":
                raise error
            if self.global_rank == 0:
                tqdm.write(f"warning: {str(error).partition(': lower')[0]}: this step is left out.", file=sys.stderr)
            for parameter in parameters:
                parameter.grad = None  # which every optimizer passes over
            return
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        clipped = norm > (gradient_clip_val or math.inf)
        self.gradient_means.update(gradient_norm=norm.view(1), clipped=clipped.view(1))

    def on_fit_start(self) -> None:
        self._dropout_layers = dropout_layers(self)
        if not self.started:
            self.initialise(self.trainer.datamodule)  # type: ignore[attr-defined]
            self.started.fill_(True)

    def on_train_start(self) -> None:
        for config in self.trainer.lr_scheduler_configs:
            length = next(vars(config.scheduler)[name] for name in SCHEDULE_LENGTHS if name in vars(config.scheduler))
            steps = self.trainer.estimated_stepping_batches
            if length != steps:
                raise VaeflowError(
                    f"the learning rate's schedule was made for {length} steps, but this run has {steps}: "
                    "resume with the same trainer.max_epochs and batch size, or start anew to train longer."
                )

    def on_fit_end(self) -> None:
        self._set_dropout(None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        identity = datamodule.identity if datamodule is not None else None
        if not all(map(is_finite, self.parameters())):
            raise VaeflowError(f"the weights are not finite at step {self.global_step}: they are not kept.")
        # what has been added up since the last line of the log
        checkpoint[SUMS] = {name: getattr(self, name).state() for name in ("train_means", "gradient_means")}
        checkpoint[KEY] = {
            "version": vaeflow.__version__,
            "model": self.description,
            "data": datamodule.description if datamodule is not None else None,
            "identity": identity.describe() if identity is not None else None,
            "averaged_by": self.averaged_by,
        }
        self.averaged_by = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.global_rank == 0:  # the others' sums are in it
            for name, state in checkpoint.get(SUMS, {}).items():
                getattr(self, name).restore(state)


@functools.cache
def _compiled(model: type[TrainedModel]) -> Any:
    return torch.compile(model.losses)
