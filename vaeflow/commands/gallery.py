"""``latent_dimensions.py`` and ``figures.py``: pictures whose models are trained first."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from vaeflow.commands import drawing, latent
from vaeflow.commands.arguments import add_output, device, newest, output_of, parser_of, say
from vaeflow.commands.training import train
from vaeflow.errors import VaeflowError
from vaeflow.figures import samples
from vaeflow.figures.style import check_outputs, save_figure, write
from vaeflow.noise import Noise
from vaeflow.records.checkpoint import load, load_data
from vaeflow.records.runs import BEST, runs_of


def latent_dimensions() -> None:
    """Train a VAE with 2, 5, 10 and 20 latents, and show samples of all side by side. What has been trained is kept."""
    parser = parser_of("latent_dimensions.py", latent_dimensions)
    add = parser.add_argument
    add("--dimensions", type=PositiveInt, nargs="+", default=[2, 5, 10, 20], help="of the latent spaces")
    add("--config", type=str, default="vae", help="of a model with latent_features")
    add("--train", type=str, default="", help="further options of train.py, such as '--data MNIST'")
    add("--experiment", type=str, default="latent_dimensions", help="name of the runs, in runs/NAME/DIMENSION")
    add("--retrain", action="store_true", help="train anew what has been trained already")
    add("--num", type=PositiveInt, default=36, help="samples of each")
    add("--temperature", type=NonNegativeFloat, default=1.0, help="multiplies the standard deviation of the prior")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add("--debug", action="store_true", help="show the traceback of an error")
    add_output(parser, "latent_dimensions.png", "this folder")
    args = parser.parse_args()
    (out,) = output_of(args, "latent_dimensions.png")
    shown: dict[str, torch.Tensor] = {}
    for dimension in args.dimensions:
        experiment = f"{args.experiment}/{dimension}"
        options = f"--experiment {experiment} --model.latent_features {dimension} {args.train}".rstrip()
        train_once(f"python scripts/train.py --config {args.config} {options}", args.retrain)
        best = newest(Path("runs"), experiment)
        model, data = load(best).to(device()), load_data(best)
        data.setup("")
        x = samples.sample(model, args.num, Noise(args.seed), None, args.temperature, mean=True)
        results = best.parents[1] / "results.json"
        nll = f"\nnll ≤ {json.loads(results.read_text())['nll']:.1f} nats" if results.is_file() else ""
        shown[f"{dimension} latents{nll}"] = x
    title = f"{type(model).__name__} on {data.label}: means of p(x|z), z from the prior"
    title += f" at temperature {args.temperature:g}" if args.temperature != 1 else ""
    save_figure(out, samples.draw_side_by_side(shown, title, samples.limits_for(data)))
    say(picture=out)


@dataclass(frozen=True)
class Picture:
    """One of the gallery: its file in ``docs/figures``, what it shows, and the commands that make it from nothing."""

    file: str
    sentence: str
    commands: tuple[str, ...]


def trained(config: str, options: str = "", name: str | None = None) -> str:
    """The command that trains a model of the gallery."""
    name = name or config.rpartition("/")[2]
    options = f" {options}" if options else ""
    return f"python scripts/train.py --config {config} --experiment gallery/{name}{options}"


FOUR = (
    'python -c "import numpy, pathlib, sklearn.datasets; '
    "x = (sklearn.datasets.load_digits().images[:4] > 7).astype('uint8'); "
    "pathlib.Path('runs').mkdir(exist_ok=True); numpy.savez('runs/four.npz', train=x.repeat(32, 0), val=x, test=x)\""
)
ON_FOUR = (
    "--data Arrays --data.path runs/four.npz --data.levels 2 --trainer.max_epochs 5000 "
    "--trainer.check_val_every_n_epoch 500 --trainer.gradient_clip_val 5 --pictures.every 0 "
    "--num_samples 1000"
)
TOY = "--data.name 8gaussians --trainer.max_epochs 15"
PICTURES = (
    Picture(
        "interpolation_vae_iaf.png",
        "A VAE with an IAF posterior: from one test digit to another through the latent space z.",
        (trained("vae_iaf"), "python scripts/interpolate.py --experiment gallery/vae_iaf --label 3 8 --animation none"),
    ),
    Picture(
        "interpolation_z0.png",
        "The same before the flow: z₀ on a great circle, and the encoder's features, which the flow is conditioned on, "
        "along with it.",
        (
            trained("vae_iaf"),
            "python scripts/interpolate.py --experiment gallery/vae_iaf --label 3 8 --space z0 --method spherical "
            "--animation none",
        ),
    ),
    Picture(
        "interpolation_maf.png",
        "A masked autoregressive flow: every test digit is decoded exactly, so the two columns at each end are equal.",
        (trained("maf"), "python scripts/interpolate.py --experiment gallery/maf --label 3 8 --animation none"),
    ),
    Picture(
        "interpolation_levels.png",
        "A multi-scale RealNVP: the coarse half of the code moves alone, the fine half stays that of the first digit.",
        (
            trained("realnvp_image"),
            "python scripts/interpolate.py --experiment gallery/realnvp_image --label 3 8 --levels scale_2 "
            "--animation none",
        ),
    ),
    Picture(
        "corners.png",
        "Four test digits at the corners of a square in the latent space of NICE.",
        (
            trained("nice"),
            "python scripts/interpolate.py --experiment gallery/nice --corners --label 0 1 6 7 --animation none",
        ),
    ),
    Picture(
        "attribute.png",
        "The direction of an attribute: the difference between the mean code of zeros and that of the other digits, "
        "added to test digits.",
        (
            trained("vae_iaf"),
            "python scripts/attribute.py --experiment gallery/vae_iaf --attribute 0 --strength -1.5:1.5:7",
        ),
    ),
    Picture(
        "manifold.png",
        "All of a latent space of two dimensions, decoded at equally probable steps, and where test digits lie in it.",
        (trained("vae_2d"), "python scripts/manifold.py --experiment gallery/vae_2d"),
    ),
    Picture(
        "latent_dimensions.png",
        "Samples of VAEs with 2, 5, 10 and 20 latents.",
        ("python scripts/latent_dimensions.py --experiment gallery/latents --retrain",),
    ),
    Picture(
        "posterior.png",
        "What a flow does to the posterior: VAEs with two latents on four digits. Gaussians leave holes in the prior, "
        "flows bend the posteriors until they tile it; dotted, the exact posterior, and the gap to it.",
        (
            FOUR,
            trained("vae_2d", ON_FOUR, "gaussian"),
            trained("vae_2d", f"--model.flow Planar --model.flow.steps 16 {ON_FOUR}", "planar"),
            trained("vae_2d", f"--model.flow InverseAutoregressive --model.flow.steps 4 {ON_FOUR}", "iaf"),
            "python scripts/posterior.py --experiment gallery/gaussian gallery/planar gallery/iaf --index 0 32 64 96",
        ),
    ),
    Picture(
        "push_forward.png",
        "What K random planar maps make of a Gaussian and of a uniform density.",
        ('python scripts/push_forward.py --steps "[1,2,10]"',),
    ),
    *(
        Picture(
            f"layers_{name.lower()}.png",
            f"{name} pulls eight Gaussians to noise, and noise to eight Gaussians, layer by layer; a point keeps its "
            "colour.",
            (
                trained(f"toys/{name.lower()}", TOY, f"toy_{name.lower()}"),
                f"python scripts/layers.py --experiment gallery/toy_{name.lower()}",
            ),
        )
        for name in ("NICE", "RealNVP", "MAF")
    ),
    Picture(
        "layers_digits.png",
        "RealNVP pulls test digits to noise, and noise to digits.",
        (trained("realnvp"), "python scripts/layers.py --experiment gallery/realnvp --num 3"),
    ),
    Picture(
        "density.png",
        "The density of a RealNVP of the plane beside the data's own.",
        (trained("toys/realnvp", TOY, "toy_realnvp"), "python scripts/density.py --experiment gallery/toy_realnvp"),
    ),
    Picture(
        "samples.png",
        "Samples of a multi-scale RealNVP, the standard deviation of its noise multiplied by 0.8.",
        (
            trained("realnvp_image"),
            "python scripts/sample.py --experiment gallery/realnvp_image --num 64 --temperature 0.8",
        ),
    ),
    Picture(
        "neighbours.png",
        "Samples of a VAE (the means of p(x|z)), and the training digits nearest to each: none is a copy.",
        (
            trained("vae_iaf"),
            "python scripts/sample.py --experiment gallery/vae_iaf --mean --num 12 --neighbours 5",
        ),
    ),
    Picture(
        "reconstructions.png",
        "Test digits, and what a VAE with two latents makes of them.",
        (trained("vae_2d"), "python scripts/reconstruct.py --experiment gallery/vae_2d"),
    ),
)


def figures() -> None:
    """Train the small models of the gallery and make all its pictures anew, docs/figures/ and docs/gallery.md."""
    parser = parser_of("figures.py", figures)
    add = parser.add_argument
    add("--only", type=str, nargs="+", default=[], help="of the pictures, by the names of their files")
    add("--reuse", action="store_true", help="draw from models that an earlier call has trained, where there are some")
    add("--out", type=str, default="docs", help="folder of gallery.md and figures/")
    add("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    known = [picture.file for picture in PICTURES]
    for name in args.only:
        if name not in known:
            raise VaeflowError(f"the gallery has no picture {name}: it has {', '.join(known)}.")
    folder = Path(args.out)
    check_outputs([folder / "gallery.md", *(folder / "figures" / name for name in args.only or known)], force=True)
    began, done = time.monotonic(), set[str]()
    for k, picture in enumerate(wanted := [p for p in PICTURES if not args.only or p.file in args.only], start=1):
        print(f"\n[{k} of {len(wanted)}, {time.monotonic() - began:.0f} s] {picture.file}", flush=True)
        *before, last = picture.commands
        for command in before:
            if command not in done:
                print(f"$ {command}", flush=True)
                train_once(command, not args.reuse) if "train.py" in command else run(command)
            done.add(command)
        last = f"{last} --out {shlex.quote(str(folder / 'figures' / picture.file))} --force"
        print(f"$ {last}", flush=True)
        run(last.replace(" --retrain", "") if args.reuse else last)
        (folder / "figures" / picture.file).with_suffix(".npz").unlink(missing_ok=True)  # the page shows pictures alone
    if all((folder / "figures" / name).is_file() for name in known):
        write(folder / "gallery.md", lambda to: to.write_text(page()))
        print(f"\npage        {folder / 'gallery.md'}, after {time.monotonic() - began:.0f} s")


def train_once(command: str, anew: bool) -> None:
    """Run a command line of ``train.py`` unless, and not ``anew``, the newest run of its experiment was trained by the
    very same and to the end, which a file in its folder says."""
    words = shlex.split(command)
    experiment = words[words.index("--experiment") + 1]
    said = lambda: newest(Path("runs"), experiment).parents[1] / "trained_by.txt"  # noqa: E731
    if anew or not runs_of(Path("runs"), experiment, BEST) or not said().is_file() or said().read_text() != command:
        run(command)
        said().write_text(command)
    else:
        print(f"kept        {said().parent}")


def page() -> str:
    """The gallery as Markdown: every picture, a sentence, and its commands."""
    parts = [
        "# Gallery",
        "Every picture comes out of a checkpoint by one command. `python scripts/figures.py` trains the models on "
        "scikit-learn's digits and on points of the plane (seed 0, two CPU cores, a few minutes) and makes them all "
        "anew, by the very commands that stand below each. Add `--out FILE`; without it a picture lies in the run's "
        "own folder.",
    ]
    for picture in PICTURES:
        commands = "\n".join(picture.commands)
        parts.append(f"## {picture.sentence}\n\n![{picture.file}](figures/{picture.file})\n\n```bash\n{commands}\n```")
    return "\n\n".join(parts) + "\n"


def run(line: str) -> None:
    """A command line ``python scripts/NAME.py …`` or ``python -c CODE``, in this process."""
    _, first, *rest = shlex.split(line)
    if first == "-c":
        exec(rest[0], {})
        return
    before, sys.argv = sys.argv, [Path(first).name, *rest]
    try:
        COMMANDS[Path(first).stem]()
    finally:
        sys.argv = before


COMMANDS: dict[str, Callable[[], None]] = {
    "attribute": latent.attribute,
    "density": drawing.draw_density,
    "interpolate": latent.interpolate,
    "latent_dimensions": latent_dimensions,
    "layers": drawing.draw_layers,
    "manifold": latent.draw_manifold,
    "posterior": latent.draw_posteriors,
    "push_forward": drawing.draw_push_forward,
    "reconstruct": latent.reconstruct,
    "sample": drawing.sample,
    "train": train,
}
