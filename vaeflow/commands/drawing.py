"""The commands that make pictures, most of them from a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from vaeflow.commands.arguments import (
    add_checkpoint,
    add_examples,
    add_output,
    checkpoints_of,
    chosen_examples,
    label_of,
    open_checkpoint,
    output_of,
    title_of,
)
from vaeflow.errors import VaeflowError
from vaeflow.figures import attributes, density, interpolation, layers, manifold, posteriors, push_forward, samples
from vaeflow.figures.images import check_drawable
from vaeflow.figures.streaming import streamed
from vaeflow.figures.style import FIGURES, check_outputs, save_animation, save_arrays, save_figure
from vaeflow.latents import LatentSpace
from vaeflow.messages import Parser
from vaeflow.models import LikelihoodModel
from vaeflow.noise import Noise


def interpolate() -> None:
    """Walk from one example to another through a model's latent space: a picture, an animation, and the numbers."""
    parser = _parser("interpolate.py", interpolate)
    add_checkpoint(parser)
    add_examples(parser, "pairs of examples, each a first and a last,")
    add = parser.add_argument
    add("--num", type=PositiveInt, default=5, help="pairs, where --index and --file do not say which")
    add("--steps", type=PositiveInt, default=11, help="columns of the picture, both ends counted")
    add("--method", type=Literal["linear", "spherical"], default="linear", help="a straight line, or a great circle")
    add("--space", type=str, default="z", help="z; or z0, before the flow of a VAE, moving the encoder's features too")
    add("--levels", type=str, nargs="+", default=[], help="of a multi-scale code: move these alone")
    add("--corners", action="store_true", help="a square between four examples instead of pairs")
    add("--animation", type=Literal["gif", "webp", "none"], default="gif", help="also written, beside the picture")
    add_output(parser, "interpolation.png", FIGURES)
    args = parser.parse_args()
    (path,) = checkpoints_of(args, parser)
    animation = [] if args.animation == "none" else [f".{args.animation}"]
    out, numbers, *animated = output_of(args, path, "interpolation.png", FIGURES, [".npz", *animation])
    model, data = open_checkpoint(path, args)
    space = _space(model, args.space)
    check_drawable(model.shape)
    x, y = chosen_examples(args, model, data, _count(args))
    walk = interpolation.interpolate(
        model, space, x, y, args.steps, args.method, args.levels, args.corners, rows=args.batch_size
    )
    moving = f" ({', '.join(args.levels)} alone)" if args.levels else ""
    title = f"{title_of(path, model, data)}: {args.method} in {space.title}{moving}"
    window = data.window() if model.shape == (2,) else None
    save_figure(out, interpolation.draw(walk, title, model.levels, window))
    save_arrays(numbers, walk.arrays())
    _say(picture=out, numbers=numbers)
    if window is None and animated:
        save_animation(animated[0], interpolation.animation(walk, model.levels))
        _say(animation=animated[0])


def _count(args: Any) -> int:
    """How many examples to take: of each label, or of all."""
    if not args.label or args.file:
        return 4 if args.corners else 2 * args.num
    if len(args.label) != 4 and args.corners:
        raise VaeflowError(f"--corners wants four labels, not {len(args.label)}.")
    if len(args.label) % 2:
        raise VaeflowError(f"there are {len(args.label)} labels, expected pairs: from the first to the second.")
    return 1 if args.corners else args.num


def sample() -> None:
    """Draw samples of a model; with --neighbours, and the training examples nearest to each."""
    parser = _parser("sample.py", sample)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--num", type=PositiveInt, default=64, help="how many samples")
    add("--temperature", type=NonNegativeFloat, default=1.0, help="multiplies the standard deviation of the base")
    add("--mean", action="store_true", help="of a latent-variable model: the mean of p(x|z), not a draw from it")
    add("--label", type=str, nargs="+", default=[], help="of a class-conditional model; by default all, by turns")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add("--neighbours", type=NonNegativeInt, default=0, help="show so many nearest training examples of each sample")
    add("--npz", action="store_true", help="also write the numbers, beside the picture")
    add_output(parser, "samples.png", FIGURES)
    args = parser.parse_args()
    (path,) = checkpoints_of(args, parser)
    out, *numbers = output_of(args, path, "samples.png", FIGURES, [".npz"] if args.npz else [])
    model, data = open_checkpoint(path, args)
    drawable = len(model.shape) == 3 or model.shape == (2,)
    if not args.npz or args.neighbours:
        check_drawable(model.shape)
    y = None
    if args.label and not model.context_features:
        raise VaeflowError("--label chooses what a class-conditional model samples, but this model has no classes.")
    if model.context_features:
        labels = torch.tensor([label_of(data, name) for name in args.label or data.class_names])
        y = labels.repeat(-(-args.num // len(labels)))[: args.num]
    data.setup("")
    x = samples.sample(model, args.num, Noise(args.seed), y, args.temperature, args.mean, args.batch_size)
    arrays = {"x": x} if y is None else {"x": x, "y": y}
    limits = samples.limits_for(data)
    window = data.window() if model.shape == (2,) else None
    title = f"{title_of(path, model, data)}: {'means of p(x|z)' if args.mean else 'samples'}"
    title += f" at temperature {args.temperature:g}" if args.temperature != 1 else ""
    if args.neighbours:
        distances, index = samples.nearest(x, data, args.neighbours)
        neighbours = data.examples("train", index.flatten())[0].unflatten(0, index.shape)
        held_out = data.examples("test", torch.arange(min(len(x), len(data.splits["test"][0]))))[0]
        ours, usual = samples.memorised(distances, samples.nearest(held_out, data)[0])
        arrays |= {"distances": distances, "neighbours": index}
        print(f"distance to the nearest training example, median: {ours:.4g} of samples, {usual:.4g} of test examples")
        title = f"{title}; nearest at {ours:.3g}, of test examples {usual:.3g} (medians)"
        shown = min(len(x), 16)
        title += f", the first {shown}" if shown < len(x) else ""
        if window is None:
            figure = samples.draw_neighbours(x[:shown], neighbours[:shown], title, model.levels, limits)
        else:
            figure = samples.draw_samples(x, title, model.levels, limits, window)
    elif drawable:
        figure = samples.draw_samples(x, title, model.levels, limits, window)
    if drawable:
        save_figure(out, figure)
        _say(picture=out)
    if args.npz:
        save_arrays(numbers[0], {name: value.numpy() for name, value in arrays.items()})
        _say(numbers=numbers[0])


def reconstruct() -> None:
    """Encode examples and decode them again."""
    parser = _parser("reconstruct.py", reconstruct)
    add_checkpoint(parser)
    add_examples(parser, "examples")
    add = parser.add_argument
    add("--num", type=PositiveInt, default=32, help="examples, if --index and --file do not say which; of each label")
    add("--temperature", type=NonNegativeFloat, default=0.0, help="0: of the mean of q(z|x); 1: of a draw from it")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add_output(parser, "reconstructions.png", FIGURES)
    args = parser.parse_args()
    (path,) = checkpoints_of(args, parser)
    (out,) = output_of(args, path, "reconstructions.png", FIGURES)
    model, data = open_checkpoint(path, args)
    _space(model, "z")
    check_drawable(model.shape)
    x, y = chosen_examples(args, model, data, args.num)
    noise = Noise(args.seed)

    def again(x: torch.Tensor, y: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return model.reconstruct(x, noise.at(index), model.context_of(y), args.temperature)

    decoded = streamed(again, x, y, torch.arange(len(x)), device=model.device, rows=args.batch_size, what="decoding")
    window = data.window() if model.shape == (2,) else None
    title = f"{title_of(path, model, data)}: reconstructions"
    title += f" of draws from q(z|x) at temperature {args.temperature:g}" if args.temperature else ""
    save_figure(out, samples.draw_reconstructions(x, decoded, title, model.levels, window))
    error = (decoded.double() - x.double()).square().mean().sqrt().item()
    print(f"root mean square error {error:.4g}, in the data's units, of {len(x)} examples")
    _say(picture=out)


def attribute() -> None:
    """Add an attribute to examples, in growing strength, along its direction in latent space: the smile vector."""
    parser = _parser("attribute.py", attribute)
    parser._negative_number_matcher = re.compile(r"^-[\d.]")  # so that -3:3:7 is a value
    add_checkpoint(parser)
    add_examples(parser, "examples to change")
    add = parser.add_argument
    add("--attribute", type=str | None, default=None, help="a label, by name; of the Frey Faces, smile")
    add("--against", type=str, nargs="+", default=[], help="labels that lack it; by default all others")
    add("--positive", type=str | None, default=None, help="instead: training examples that have it, such as 3,8,20-40; of the Frey Faces, frames of the film")  # noqa: E501  # fmt: skip
    add("--negative", type=str | None, default=None, help="and that lack it")
    add("--strength", type=str, default="-1:2:7", help="FIRST:LAST:COUNT; 1 is the way from the mean without to that with it")  # noqa: E501  # fmt: skip
    add("--method", type=Literal["means", "probe"], default="means", help="difference of means, or a logistic regression")  # noqa: E501  # fmt: skip
    add("--space", type=str, default="z", help="z; or z0, before the flow of a VAE, moving the encoder's features too")
    add("--num", type=PositiveInt, default=5, help="examples, if --index and --file do not say which; of each label")
    add("--limit", type=PositiveInt, default=10_000, help="so many training examples with it, and without, at most")
    add_output(parser, "attribute.png", FIGURES)
    args = parser.parse_args()
    strength = attributes.strengths(args.strength)
    if (args.positive is None) != (args.negative is None) or (args.positive is None) == (args.attribute is None):
        parser.error("give --attribute NAME, or two lists of training examples, --positive and --negative.")
    (path,) = checkpoints_of(args, parser)
    (out,) = output_of(args, path, f"attribute_{args.attribute or 'lists'}.png", FIGURES)
    model, data = open_checkpoint(path, args)
    space = _space(model, args.space)
    check_drawable(model.shape)
    if len(model.shape) != 3:
        raise VaeflowError("an attribute is added to images, but the data are points of the plane.")
    if args.positive is not None:
        having, lacking = (data.in_training(numbers(text)) for text in (args.positive, args.negative))
    else:
        having, lacking = data.attribute(args.attribute)
        if args.against:
            lacking = torch.cat([data.of_class("train", name) for name in args.against])
    x, y = chosen_examples(args, model, data, args.num)

    def encoded(x: torch.Tensor, y: torch.Tensor, what: str) -> torch.Tensor:
        encode = lambda x, y: space.encode(x, model.context_of(y))  # noqa: E731
        return streamed(encode, x, y, device=model.device, rows=args.batch_size, what=what)

    have, lack = (encoded(*data.examples("train", index[: args.limit]), what="encoding") for index in (having, lacking))
    found = attributes.direction(have, lack, args.method)
    codes = encoded(x, y, "encoding")
    moved = codes[:, None] + strength.to(codes.dtype)[:, None] * found.vector
    decode = lambda z, y: space.decode(z, model.context_of(y))  # noqa: E731
    changed = streamed(decode, moved.flatten(0, 1), y.repeat_interleave(len(strength)), device=model.device,
                       rows=args.batch_size, what="decoding").unflatten(0, moved.shape[:2])  # fmt: skip
    name = args.attribute if args.attribute is not None else "an attribute by two lists"
    kind = f"label {name}" if data.num_classes and args.attribute else name
    how = "difference of means" if found.accuracy is None else f"a probe, balanced accuracy {found.accuracy:.0%}"
    against = f" against {', '.join(args.against)}" if args.against else ""
    title = f"{title_of(path, model, data)}: {kind}{against} in {space.title}, {how}"
    save_figure(out, attributes.draw(x, changed, strength, title, model.levels))
    print(f"{len(have)} training examples with the attribute, {len(lack)} without")
    _say(picture=out)


def numbers(text: str) -> torch.Tensor:
    """Numbers and ranges that commas separate.

    >>> numbers("3,8,20-23")
    tensor([ 3,  8, 20, 21, 22, 23])
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise VaeflowError(
                f"{text!r} is no list of numbers, such as 3,8,20-40: {part.strip()!r} is not understood."
            )
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return torch.tensor(found)


def draw_manifold() -> None:
    """Decode a latent space of two dimensions on a grid of equally probable steps, beside the codes of the data."""
    parser = _parser("manifold.py", draw_manifold)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--points", type=PositiveInt, default=20, help="of the grid, each way")
    add("--num", type=PositiveInt, default=2000, help="examples whose codes are shown, at most")
    add("--split", type=str, default="test", help="whose codes: train, val or test")
    add_output(parser, "manifold.png", FIGURES)
    args = parser.parse_args()
    (path,) = checkpoints_of(args, parser)
    (out,) = output_of(args, path, "manifold.png", FIGURES)
    model, data = open_checkpoint(path, args)
    if len(model.shape) != 3:
        raise VaeflowError("a manifold is one of images, but the data are none; layers.py shows flows of the plane.")
    if model.context_features:
        raise VaeflowError("a class-conditional model has another manifold for each class: take one that is not.")
    manifold.check_plane(model)
    z, _ = manifold.plane_of_codes(model, args.points)
    decoded = streamed(model.decode, z, device=model.device, rows=args.batch_size, what="decoding")
    data.evaluate_on(args.split)
    x, y = data.examples(args.split, torch.arange(min(args.num, data.num_evaluated)))
    codes = streamed(model.encode, x, device=model.device, rows=args.batch_size, what="encoding")
    title = title_of(path, model, data)
    save_figure(out, manifold.draw(decoded, z, codes, y, data.class_names, samples.limits_for(data), title))
    _say(picture=out)


def draw_posteriors() -> None:
    """Compare posteriors of models with two latents on the same examples: the prior, samples of each q(z|x), and its
    contours beside those of the exact p(z|x)."""
    parser = _parser("posterior.py", draw_posteriors)
    add_checkpoint(parser, several=True)
    add_examples(parser, "examples")
    add = parser.add_argument
    add("--num", type=PositiveInt, default=4, help="examples, if --index and --file do not say which; of each label")
    add("--samples", type=PositiveInt, default=2000, help="of each posterior")
    add("--points", type=PositiveInt, default=161, help="of the grid, each way")
    add("--half-width", type=float, default=3.5, help="the grid goes from minus this to this, each way")
    add_output(parser, "posterior.png", FIGURES)
    parser.set_defaults(split="train")
    args = parser.parse_args()
    if args.half_width <= 0:
        raise VaeflowError(f"--half-width is {args.half_width:g}, expected more than 0.")
    paths = checkpoints_of(args, parser)
    (out,) = output_of(args, paths[0], "posterior.png", FIGURES)
    found = []
    for path in paths:
        model, data = open_checkpoint(path, args)
        manifold.check_plane(model)
        x, y = chosen_examples(args, model, data, args.num)
        name = path.parents[2].name if path.parent.name == "checkpoints" else path.stem
        found.append(
            posteriors.posteriors(
                model, x, y, name, args.samples, args.points, args.half_width, rows=args.batch_size * 80
            )
        )
        print(
            f"{name:<24}−log p(x) {found[-1].nll.mean():.3f} nats, KL(q(z|x) ‖ p(z|x)) {found[-1].gap.mean():.3f} nats"
        )
    save_figure(out, posteriors.draw(found, f"posteriors of {len(x)} examples of {data.label}"))
    _say(picture=out)


def draw_layers() -> None:
    """Follow data to noise and noise to data, layer by layer, through a flow."""
    parser = _parser("layers.py", draw_layers)
    add_checkpoint(parser)
    add_examples(parser, "examples")
    add = parser.add_argument
    add("--num", type=PositiveInt | None, default=None, help="examples and samples: 2000 points, or 3 images")
    add("--columns", type=PositiveInt, default=6, help="values shown, at most, evenly chosen among all layers")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add_output(parser, "layers.png", FIGURES)
    args = parser.parse_args()
    (path,) = checkpoints_of(args, parser)
    (out,) = output_of(args, path, "layers.png", FIGURES)
    model, data = open_checkpoint(path, args)
    _space(model, "z")
    check_drawable(model.shape)
    plane = model.shape == (2,)
    data.setup("")
    count = args.num or (min(2000, len(data.splits["test"][0])) if plane else 3)
    x, y = chosen_examples(args, model, data, count)
    on_device, context = x.to(model.device), model.context_of(y.to(model.device))
    uniform = Noise(args.seed).at(torch.arange(len(x), device=model.device)).uniform("layers", 1, model.dimension)[0]
    z = model.icdf(uniform.to(model.dtype))
    if data.measure == "energy":  # there are no data: both rows start from noise
        on_device = model.decode(z, context)
    to_noise, passed, last = layers.layers(model, model.encode(on_device, context), context, args.columns)
    to_data, *_ = layers.layers(model, z, context, args.columns)
    window = data.window() if plane else None
    title = f"{title_of(path, model, data)}, layer by layer"
    save_figure(out, layers.draw(to_noise, to_data, passed, last, title, model.levels, window))
    _say(picture=out)


def draw_density() -> None:
    """Draw a model's density of the plane beside that of the data."""
    parser = _parser("density.py", draw_density)
    add_checkpoint(parser)
    parser.add_argument("--points", type=PositiveInt, default=200, help="of the grid, each way")
    add_output(parser, "density.png", FIGURES)
    args = parser.parse_args()
    (path,) = checkpoints_of(args, parser)
    (out,) = output_of(args, path, "density.png", FIGURES)
    model, data = open_checkpoint(path, args)
    if model.shape != (2,) or model.levels is not None or model.context_features:
        raise VaeflowError("a density is drawn of points of the plane, without labels; these data are others.")
    data.setup("")
    save_figure(out, density.draw(model, data, args.points))
    _say(picture=out)


def draw_push_forward() -> None:
    """Draw what planar flows of K random steps do to a Gaussian and to a uniform density."""
    parser = _parser("push_forward.py", draw_push_forward)
    parser.add_argument("--steps", type=list[PositiveInt], default=[1, 2, 10], help="the K, one column each")
    parser.add_argument("--seed", type=NonNegativeInt, default=1, help="of the maps")
    parser.add_argument("--out", type=str, default="push_forward.png", help="the picture")
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there already")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    out = Path(args.out)
    if out.suffix not in FIGURES:
        raise VaeflowError(f"--out is {out}, expected a name that ends in one of {', '.join(FIGURES)}.")
    check_outputs([out], args.force)
    save_figure(out, push_forward.push_forward(args.steps, args.seed))
    _say(picture=out)


def _parser(name: str, command: Any) -> Parser:
    return Parser(prog=name, description=command.__doc__ or "", allow_abbrev=False)


def _space(model: LikelihoodModel, name: str) -> LatentSpace:
    """A model's latent space of a name.

    Raises:
        VaeflowError: if it has none, or no such.
    """
    spaces = model.latent_spaces
    if not spaces:
        raise VaeflowError(
            f"{type(model).__name__} has no latent space to go through: its data are no function of one code."
        )
    if name not in spaces:
        raise VaeflowError(f"--space is {name}, but this model has {' and '.join(spaces)} alone.")
    return spaces[name]


def _say(**paths: Path) -> None:
    for name, path in paths.items():
        print(f"{name:<12}{path}")
