"""The commands that draw what a model makes of noise: ``sample.py``, ``layers.py``, ``density.py`` and, of no
checkpoint, ``push_forward.py``."""

from __future__ import annotations

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from vaeflow.commands.arguments import (
    AtLeastTwo,
    add_batch_size,
    add_examples,
    add_output,
    chosen_examples,
    opened,
    output_of,
    parser_of,
    picture_parser,
    say,
    space_of,
)
from vaeflow.errors import VaeflowError
from vaeflow.figures import density_plot, layers, push_forward, samples
from vaeflow.figures.images import check_drawable, is_drawable
from vaeflow.figures.plane import plane_of
from vaeflow.figures.streaming import encoded, streamed
from vaeflow.figures.style import save_arrays, save_figure
from vaeflow.noise import Noise

SHOWN_WITH_NEIGHBOURS = 16


def sample() -> None:
    """Draw samples of a model; with --neighbours, and the training examples nearest to each."""
    parser = picture_parser("sample.py", sample, "samples.png")
    add = parser.add_argument
    add("--num", type=PositiveInt | None, default=None, help="how many samples: by default 64, or 2000 points")
    temperature = "multiplies the standard deviation of the base, or is T in P(x_i|x_<i)^(1/T) of GatedPixelCNN"
    add("--temperature", type=NonNegativeFloat, default=1.0, help=temperature)
    add("--mean", action="store_true", help="of a latent-variable model: the mean of p(x|z), not a draw from it")
    add("--label", type=str, nargs="+", default=[], help="of a class-conditional model; by default all, by turns")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add("--neighbours", type=NonNegativeInt, default=0, help="show so many nearest training examples of each sample")
    add("--npz", action="store_true", help="also write the numbers, beside the picture")
    add_batch_size(parser)
    args = parser.parse_args()
    model, data, title, out, numbers = opened(parser, args, "samples.png", [".npz"] if args.npz else [])
    if not args.npz:
        check_drawable(model.shape)
    count, y = args.num or (2000 if model.shape == (2,) else 64), None
    if args.mean and not hasattr(model, "generate"):
        raise VaeflowError(f"--mean is the mean of p(x|z), which {type(model).__name__} has not: x is a function of z.")
    if args.label and not model.context_features:
        raise VaeflowError("--label chooses what a class-conditional model samples, but this model has no classes.")
    if model.context_features:
        labels = torch.tensor([data.label_of(name) for name in args.label] or data.trained_classes())
        y = labels.repeat(-(-count // len(labels)))[:count]
    x = samples.sample(model, count, Noise(args.seed), y, args.temperature, args.mean, args.batch_size)
    arrays = {"x": x.numpy()} if y is None else {"x": x.numpy(), "y": data.labels_as_given(y)}
    title += ": means of p(x|z)" if args.mean else ": samples"
    title += f" at temperature {args.temperature:g}" if args.temperature != 1 else ""
    figure, limits = None, samples.limits_for(data)
    if args.neighbours:
        distances, index = samples.nearest(x, data, args.neighbours)
        test = data.examples("test", torch.arange(min(len(x), len(data.splits["test"][0]))))[0]
        ours, usual = (d[:, 0].median().item() for d in (distances, samples.nearest(test, data)[0]))
        print(f"distance to the nearest training example, median: {ours:.4g} of samples, {usual:.4g} of test examples")
        arrays |= {"distances": distances.numpy(), "neighbours": index.numpy()}
        if len(model.shape) == 3:
            title += f"; nearest at {ours:.3g}, of test examples {usual:.3g} (medians)"
            shown = slice(0, SHOWN_WITH_NEIGHBOURS)
            title += f", the first {SHOWN_WITH_NEIGHBOURS}" if len(x) > SHOWN_WITH_NEIGHBOURS else ""
            near = data.examples("train", index[shown].flatten())[0].unflatten(0, index[shown].shape)
            figure = samples.draw_neighbours(x[shown], near, title, limits)
    if is_drawable(model.shape):
        save_figure(out, figure or samples.draw_samples(x, title, limits, plane_of(data)))
        say(picture=out)
    if args.npz:
        save_arrays(numbers[0], arrays)
        say(numbers=numbers[0])


def draw_layers() -> None:
    """Follow data to noise and noise to data, layer by layer, through a flow."""
    parser = picture_parser("layers.py", draw_layers, "layers.png")
    add_examples(parser, "examples")
    add = parser.add_argument
    add("--num", type=PositiveInt | None, default=None, help="examples and samples: 2000 points, or 3 images")
    add("--columns", type=AtLeastTwo, default=6, help="values shown, at most, evenly chosen among all layers")
    add("--seed", type=NonNegativeInt, default=0, help="of the noise")
    add_batch_size(parser)
    args = parser.parse_args()
    model, data, title, out, _ = opened(parser, args, "layers.png")
    space = space_of(model)
    check_drawable(model.shape)
    plane = plane_of(data)
    count = args.num or (3 if plane is None else 2000)
    if data.has_examples:
        x, y = chosen_examples(args, model, data, args.num, count)
        codes = encoded(model, space, x, y, args.batch_size)
    else:
        y = torch.zeros(count, dtype=torch.int64)
    noise = Noise(args.seed).at(torch.arange(len(y)))
    u = noise.uniform("layers", 1, (model.code_features,))[0].to(model.dtype)
    z = streamed(model.icdf, u, device=model.device)
    if not data.has_examples:  # both rows start from noise
        codes = z
    to_noise, passed, last = layers.layers(model, codes, y, args.columns, args.batch_size)
    to_data, *_ = layers.layers(model, z, y, args.columns, args.batch_size)
    title += f", layer by layer; from z to x there are {last}"
    save_figure(out, layers.draw(to_noise, to_data, passed, last, title, model.levels, plane))
    say(picture=out)


def draw_density() -> None:
    """Draw a model's density of the plane beside that of the data."""
    parser = picture_parser("density.py", draw_density, "density.png")
    parser.add_argument("--points", type=AtLeastTwo, default=200, help="of the grid, each way")
    args = parser.parse_args()
    model, data, title, out, _ = opened(parser, args, "density.png")
    if model.shape != (2,) or model.levels is not None or model.context_features:
        raise VaeflowError("a density is drawn of points of the plane, without labels; these data are others.")
    save_figure(out, density_plot.draw(model, data, args.points, title))
    say(picture=out)


def draw_push_forward() -> None:
    """Draw what planar flows of K random steps do to a Gaussian and to a uniform density."""
    parser = parser_of("push_forward.py", draw_push_forward)
    parser.add_argument("--steps", type=list[PositiveInt], default=[1, 2, 10], help="the K, one column each")
    parser.add_argument("--seed", type=NonNegativeInt, default=1, help="of the maps")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_output(parser, "push_forward.png", "this folder")
    args = parser.parse_args()
    (out,) = output_of(args, "push_forward.png")
    save_figure(out, push_forward.push_forward(args.steps, args.seed))
    say(picture=out)
