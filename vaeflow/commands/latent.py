"""The commands that walk through a latent space: ``interpolate.py``, ``reconstruct.py``, ``attribute.py``,
``manifold.py`` and ``posterior.py``."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from typing import Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from vaeflow.commands.arguments import (
    AtLeastTwo,
    add_batch_size,
    add_checkpoint,
    add_examples,
    add_output,
    checkpoints_of,
    chosen_examples,
    device,
    open_checkpoint,
    opened,
    output_of,
    parser_of,
    picture_parser,
    run_name,
    say,
    space_of,
)
from vaeflow.data import DataModule
from vaeflow.errors import VaeflowError
from vaeflow.figures import attributes, interpolation, manifold, posteriors, samples
from vaeflow.figures.images import check_drawable, is_drawable
from vaeflow.figures.plane import plane_of
from vaeflow.figures.streaming import encoded, streamed
from vaeflow.figures.style import save_animation, save_arrays, save_figure
from vaeflow.noise import Noise

SPACE = "z; or z0, before the flow of a VAE, moving the encoder's features too"
NUM = "how many examples, with --label of each label; unused with --index or --file"


def interpolate() -> None:
    """Walk from one example to another through a model's latent space: a picture, an animation, and the numbers."""
    parser = picture_parser("interpolate.py", interpolate, "interpolation.png")
    add_examples(parser, "pairs of examples, each a first and a last,")
    add = parser.add_argument
    add(
        "--num",
        type=PositiveInt | None,
        default=None,
        help="how many pairs: by default 5; unused with --index or --file",
    )
    add("--steps", type=AtLeastTwo, default=11, help="columns of the picture, both ends counted")
    add("--method", type=Literal["linear", "spherical"], default="linear", help="a straight line, or a great circle")
    add("--space", type=str, default="z", help=SPACE)
    add("--levels", type=str, nargs="+", default=[], help="of a multi-scale code: move these alone")
    add("--corners", action="store_true", help="a square between four examples instead of pairs")
    add("--animation", type=Literal["gif", "webp", "none"], default="gif", help="written beside the picture")
    add_batch_size(parser)
    args = parser.parse_args()
    endings = [".npz", *([] if args.animation == "none" else [f".{args.animation}"])]
    model, data, title, out, (numbers, *animated) = opened(parser, args, "interpolation.png", endings)
    space = space_of(model, args.space)
    _check_ends(args)
    if args.corners:
        x, y = chosen_examples(args, model, data, None, 1 if args.label and not args.file else 4)
    else:
        x, y = chosen_examples(args, model, data, args.num, 5, at_once=1 if args.label else 2)
    walk = interpolation.interpolate(
        model, space, x, y, args.steps, args.method, args.levels, args.corners, rows=args.batch_size
    )
    moving = f" ({', '.join(args.levels)} alone)" if args.levels else ""
    title = f"{title}: {args.method} in {space.title}{moving}"
    save_arrays(numbers, walk.arrays())
    if not is_drawable(model.shape):
        print(f"there is no picture of data of shape {model.shape}, only of images and of points of the plane.")
        say(numbers=numbers)
        return
    plane = plane_of(data)
    save_figure(out, interpolation.draw(walk, title, model.levels, plane))
    say(picture=out, numbers=numbers)
    if plane is None and animated:
        save_animation(animated[0], interpolation.animation(walk, model.levels))
        say(animation=animated[0])


def _check_ends(args: Namespace) -> None:
    """Raise a :class:`VaeflowError` unless labels are pairs, or of four corners."""
    if not args.label or args.file or args.index:
        return
    if len(args.label) != 4 and args.corners:
        raise VaeflowError(f"--corners wants four labels, not {len(args.label)}.")
    if len(args.label) % 2:
        raise VaeflowError("--label wants pairs: the label that a path starts from, and the one that it leads to.")


def reconstruct() -> None:
    """Encode examples and decode them again."""
    parser = picture_parser("reconstruct.py", reconstruct, "reconstructions.png")
    add_examples(parser, "examples")
    add = parser.add_argument
    add("--num", type=PositiveInt | None, default=None, help=f"{NUM}; 32")
    add("--temperature", type=NonNegativeFloat, default=0.0, help="0: of the mean of q(z|x); 1: of a draw from it")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add_batch_size(parser)
    args = parser.parse_args()
    model, data, title, out, _ = opened(parser, args, "reconstructions.png")
    space_of(model)
    check_drawable(model.shape)
    x, y = chosen_examples(args, model, data, args.num, 32)
    decoded = samples.reconstruct(model, x, y, Noise(args.seed), args.temperature, args.batch_size)
    title += ": reconstructions"
    title += f" of draws from q(z|x) at temperature {args.temperature:g}" if args.temperature else ""
    save_figure(out, samples.draw_reconstructions(x, decoded, title, model.levels, plane_of(data)))
    error = (decoded.double() - x.double()).square().mean().sqrt().item()
    print(f"root mean square error {error:.4g}, in the data's units, of {len(x)} examples")
    say(picture=out)


def attribute() -> None:
    """Add an attribute to examples, in growing strength, along its direction in latent space: the smile vector."""
    parser = picture_parser("attribute.py", attribute, "attribute_NAME.png")
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # so that -3:3:7 is a value
    add_examples(parser, "examples to change")
    add = parser.add_argument
    add("--attribute", type=str | None, default=None, help="a label, by name; of the Frey Faces, smile")
    add("--against", type=str, nargs="+", default=[], help="labels that lack it; by default all others")
    add("--positive", type=str | None, default=None, help="instead: training examples that have it, such as 3,8,20-40")
    add("--negative", type=str | None, default=None, help="and that lack it; of the Frey Faces, frames of the film")
    add("--strength", type=str, default="-1:2:7", help="FIRST:LAST:COUNT, in ways between the means of both")
    add("--method", type=Literal["means", "probe"], default="means", help="difference of means, or logistic regression")
    add("--space", type=str, default="z", help=SPACE)
    add("--num", type=PositiveInt | None, default=None, help=f"{NUM}; 5")
    add("--limit", type=PositiveInt, default=10_000, help="training examples with it, and without it, at most")
    add_batch_size(parser)
    args = parser.parse_args()
    strength = strengths(args.strength)
    lists = [numbers(text) for text in (args.positive, args.negative) if text is not None]
    if (args.positive is None) != (args.negative is None) or (args.positive is None) == (args.attribute is None):
        parser.error("give --attribute NAME, or two lists of training examples, --positive and --negative.")
    if args.against and args.attribute is None:
        parser.error("leave out --against: two lists say what lacks the attribute.")
    model, data, title, out, _ = opened(parser, args, f"attribute_{args.attribute or 'of_lists'}.png")
    space = space_of(model, args.space)
    if len(model.shape) != 3:
        raise VaeflowError(f"an attribute is added to images, but these data have shape {model.shape}.")
    if args.attribute is None:
        having, lacking = (data.in_training(numbers) for numbers in lists)
    else:
        having, lacking = data.attribute(args.attribute)
        if args.against:
            lacking = torch.cat([data.of_class("train", name) for name in args.against]).unique()
    if bool(torch.isin(having, lacking).any()):
        raise VaeflowError("some training examples both have the attribute and lack it: give sets without common ones.")
    if args.attribute in data.class_names and not (args.index or args.label or args.file):
        args.index = _without(data, args.split, args.attribute)[: args.num or 5].tolist()
    x, y = chosen_examples(args, model, data, args.num, 5)
    sets = (_spread(having, args.limit), _spread(lacking, args.limit))
    changed, found = attributes.resynthesise(model, space, x, y, sets, data, strength, args.method, args.batch_size)
    name = "what two lists differ in" if args.attribute is None else args.attribute
    kind = f"label {name}" if data.num_classes and args.attribute else name
    against = f" against {', '.join(args.against)}" if args.against else ""
    how = "difference of means" if found.accuracy is None else f"a probe, balanced accuracy {found.accuracy:.0%}"
    title = f"{title}: adding {kind}{against} in {space.title} ({how})"
    save_figure(out, attributes.draw(x, changed, strength, title, model.levels))
    print(f"{len(sets[0])} training examples with the attribute, {len(sets[1])} without")
    for numbers_of, index, flag in zip(lists, (having, lacking), ("--positive", "--negative"), strict=False):
        if len(index) < len(numbers_of):
            print(f"{len(numbers_of) - len(index)} examples of {flag} are in other splits, and left out")
    say(picture=out)


def _without(data: DataModule, split: str, name: str) -> Tensor:
    """The indices of a split's examples whose label has another name."""
    has = torch.zeros(data.count(split), dtype=torch.bool)
    has[data.of_class(split, name)] = True
    return (~has).nonzero().flatten()


def _spread(index: Tensor, limit: int) -> Tensor:
    """At most so many of the indices, evenly spread: a data set may be sorted."""
    return index[torch.linspace(0, len(index) - 1, min(limit, len(index))).long()]


def numbers(text: str) -> Tensor:
    """Numbers and ranges that commas separate.

    >>> numbers("3,8,20-23")
    tensor([ 3,  8, 20, 21, 22, 23])
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part)
        if match is None:
            raise VaeflowError(f"{text!r} is no list of numbers, such as 3,8,20-40.")
        if int(match[2] or match[1]) < int(match[1]):
            raise VaeflowError(f"{part.strip()!r} runs backwards, expected the smaller number first.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return torch.tensor(found)


def strengths(text: str) -> Tensor:
    """``first:last:count``, such as -3:3:7, evenly spaced.

    >>> strengths("-1:1:5")
    tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000])
    """
    try:
        first, last, count = text.split(":")
        low, high, number = float(first), float(last), int(count)
    except ValueError:
        raise VaeflowError(f"--strength is {text}, expected FIRST:LAST:COUNT, such as -3:3:7.") from None
    if not (math.isfinite(low) and math.isfinite(high)) or number < 1 or (number == 1 and low != high):
        raise VaeflowError(f"--strength is {text}, expected two finite numbers and how many steps, such as -3:3:7.")
    return torch.linspace(low, high, number)


def draw_manifold() -> None:
    """Decode a latent space of two dimensions on a grid of equally probable steps, beside the codes of the data."""
    parser = picture_parser("manifold.py", draw_manifold, "manifold.png")
    add = parser.add_argument
    add("--points", type=PositiveInt, default=20, help="of the grid, each way")
    add("--num", type=PositiveInt, default=2000, help="examples whose codes are shown, at most")
    add("--split", type=str, default="test", help="whose codes: train, val or test")
    add_batch_size(parser)
    args = parser.parse_args()
    model, data, title, out, _ = opened(parser, args, "manifold.png")
    if len(model.shape) != 3:
        raise VaeflowError("a manifold is one of images, but the data are none; layers.py shows flows of the plane.")
    if model.context_features:
        raise VaeflowError("a class-conditional model has another manifold for each class: take one that is not.")
    manifold.check_plane(model)
    z = manifold.plane_of_codes(model, args.points)
    decoded = streamed(model.decode, z, device=model.device, rows=args.batch_size, what="decoding")
    x, y = data.examples(args.split, torch.arange(min(args.num, data.count(args.split))))
    codes = encoded(model, space_of(model), x, y, args.batch_size)
    shown = f"codes of {len(x)} examples, {args.split} split"
    save_figure(out, manifold.draw(decoded, codes, y, data.class_names, samples.limits_for(data), title, shown))
    say(picture=out)


def draw_posteriors() -> None:
    """Compare posteriors of models with two latents on the same examples: the prior, samples of each q(z|x), and its
    contours beside those of the exact p(z|x)."""
    parser = parser_of("posterior.py", draw_posteriors)
    add_checkpoint(parser, several=True)
    add_examples(parser, "examples")
    add = parser.add_argument
    add("--num", type=PositiveInt | None, default=None, help=f"{NUM}; 4")
    add("--samples", type=PositiveInt, default=2000, help="of each posterior")
    add("--points", type=AtLeastTwo, default=161, help="of the grid, each way")
    add("--half-width", type=PositiveFloat, default=4.0, help="the grid goes from minus this to this, each way")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add_output(parser, "posterior.png", "pictures/ in the first run's folder")
    parser.set_defaults(split="train")
    args = parser.parse_args()
    paths = checkpoints_of(args, parser)
    (out,) = output_of(args, "posterior.png", paths[0])
    found: list[posteriors.ModelPosteriors] = []
    same: tuple[str, Tensor] | None = None
    for path in paths:
        model, data = open_checkpoint(path, args)
        manifold.check_plane(model)
        x, y = chosen_examples(args, model, data, args.num, 4)
        same = same or (data.measure, x)
        if data.measure != same[0] or not torch.equal(x, same[1]):
            raise VaeflowError(
                f"{path} is of other examples than {paths[0]}: posteriors are compared of the same ones."
            )
        name = run_name(path, args.runs)
        if name in {other.name for other in found} or [run_name(p, args.runs) for p in paths].count(name) > 1:
            name += f" {path.parents[1].name}"
        how = (args.samples, args.points, args.half_width, args.seed)
        one = posteriors.posteriors(model.to(device()), x, y, name, *how)
        print(f"{name:<24}−log p(x) {one.nll.mean():.3f} nats, KL(q(z|x) ‖ p(z|x)) {one.gap.mean():.3f} nats")
        found.append(one)
    names = [data.class_names[label] for label in y.tolist()] if data.num_classes and not args.file else None
    title = f"posteriors of {len(x)} examples of {data.label}"
    title += "" if args.file else f", {args.split} split"
    save_figure(out, posteriors.draw(found, title, names))
    say(picture=out)
