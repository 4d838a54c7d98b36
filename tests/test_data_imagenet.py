"""A folder of pictures laid out as ImageNet: order, cuts beside torchvision's, what is refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from spikewvat import files
from spikewvat.data.imagenet import ImageNet
from spikewvat.data.loaders import make_loader
from spikewvat.data.pictures import RandomCrop, centre, pixels, read_picture
from spikewvat.errors import DataError, MissingExtraError
from spikewvat.lab.recipes import read_recipe, recipe_from, run
from spikewvat.lab.recipes.loaders import open_data
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.suites.suite import suites_folder

Image = pytest.importorskip("PIL.Image")
CLASSES = ("n01440764", "n01443537")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def picture(width, height, seed, hue=0):
    """Return a smooth random picture, brighter in one channel."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    coarse[:, hue] += 1
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0] / 2
    return Image.fromarray((255 * smooth).byte().permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "imagenet"
    for split, count in (("train", 6), ("val", 3)):
        for hue, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                drawn = picture(64, 64 if number else 80, 10 * hue + number, hue)
                drawn.save(folder / f"{name}_{number}.JPEG", quality=95)
    (root / "train" / CLASSES[0] / "notes.txt").write_text("no picture")
    (root / "train" / ".cache").mkdir()
    return root


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may damage."""
    for path in made.rglob("*.JPEG"):
        copy = tmp_path / path.relative_to(made)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path


def test_pictures_and_labels_in_order(made):
    data = ImageNet(made, "train", size=32)
    assert (len(data), data.names, data.classes) == (12, CLASSES, 2)
    assert data.targets == [0] * 6 + [1] * 6
    assert [path.name for path in data.files[:2]] == ["n01440764_0.JPEG", "n01440764_1.JPEG"]
    assert [path.parent.parent.name for path in ImageNet(made.parent, "test").files] == ["val"] * 6
    few = ImageNet(made, "train", per_class=2)
    assert (len(few), few.targets) == (4, [0, 0, 1, 1])
    image, label = data[7]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 1)
    torch.testing.assert_close(torch.tensor(data.black), -MEAN / STD)


def test_test_images_are_the_middle_standardised(made):
    data = ImageNet(made, "test", size=28, resize=32)
    expected = pixels(centre(read_picture(data.files[0], purpose="x"), resize=32, size=28))
    scaled = (expected / 255 - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(data[0][0], scaled)
    assert torch.equal(data[0][0], data[0][0])
    assert ImageNet(made, "test")[0][0].shape == (3, 224, 224)


@pytest.mark.parametrize("shape", [(64, 64), (90, 61), (61, 90), (500, 333), (31, 77)])
def test_the_middle_is_that_of_torchvision(shape):
    pytest.importorskip("spikewvat.lab.models.vision", exc_type=MissingExtraError)
    from torchvision import transforms

    drawn = picture(*shape, seed=0)
    for resize, size in ((40, 32), (33, 32), (256, 224)):
        steps = [transforms.Resize(resize), transforms.CenterCrop(size), transforms.PILToTensor()]
        expected = transforms.Compose(steps)(drawn)
        assert torch.equal(pixels(centre(drawn, resize=resize, size=size)), expected)


def test_a_random_part_is_cut_as_torchvision_does():
    pytest.importorskip("spikewvat.lab.models.vision", exc_type=MissingExtraError)
    from torchvision.transforms import functional

    drawn, crop = picture(90, 61, seed=0), RandomCrop(32)
    for seed in range(5):
        one, two = (torch.Generator().manual_seed(seed) for _ in range(2))
        left, top, wide, high = crop.box(90, 61, generator=one)
        expected = functional.resized_crop(drawn, top, left, high, wide, [32, 32])
        assert torch.equal(pixels(crop(drawn, generator=two)), pixels(expected))


def test_random_parts_lie_inside_and_have_the_wanted_area_and_ratio():
    generator = torch.Generator().manual_seed(0)
    crop = RandomCrop(8)
    boxes = torch.tensor([crop.box(500, 400, generator=generator) for _ in range(3000)]).double()
    left, top, wide, high = boxes.unbind(1)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + wide <= 500).all()
    assert (top + high <= 400).all()
    area, ratio = wide * high / 200_000, wide / high
    assert area.min() >= 0.079
    assert ratio.min() >= 0.74
    assert ratio.max() <= 1.35
    # Parts that do not fit are drawn anew, so large ones are rarer than uniform areas.
    small = area < 0.5
    assert 0.45 < small.double().mean() < 0.65
    assert abs(ratio[small].log().mean()) < 0.02
    assert left.max() > 300
    # A uniform position: the middle of small parts is the middle of the picture.
    tiny = area < 0.2
    assert (left + wide / 2)[tiny].mean() == pytest.approx(250, abs=10)
    assert (top + high / 2)[tiny].mean() == pytest.approx(200, abs=10)


@pytest.mark.parametrize(
    ("shape", "box"),
    [((1000, 20), (486, 0, 27, 20)), ((20, 1000), (0, 486, 20, 27)), ((30, 30), (0, 0, 30, 30))],
)
def test_where_no_part_fits_the_middle_is_taken(shape, box):
    crop = RandomCrop(8, scale=(3.0, 4.0))
    assert crop.box(*shape) == box


def test_seeds_of_random_parts(made):
    fixed = ImageNet(made, "train", size=16, seed=1)
    assert torch.equal(fixed[3][0], fixed[3][0])
    assert not torch.equal(fixed[3][0], ImageNet(made, "train", size=16, seed=2)[3][0])
    free = ImageNet(made, "train", size=16)
    torch.manual_seed(0)
    drawn = [free[3][0] for _ in range(2)]
    assert not torch.equal(*drawn)
    torch.manual_seed(0)
    assert torch.equal(free[3][0], drawn[0])
    plain = free.without_augmentation()
    assert torch.equal(plain[3][0], plain[3][0])
    same = ImageNet(made, "train", size=16, augment=False)
    assert torch.equal(plain[3][0], same[3][0])
    assert not torch.equal(free[3][0], plain[3][0])  # the first one still augments


def test_batches_with_workers(made):
    data = ImageNet(made, "train", size=16, seed=3)
    plain = next(iter(make_loader(data, 12)))
    worked = next(iter(make_loader(data, 12, workers=1)))
    assert torch.equal(plain[0], worked[0])
    assert plain[0].shape == (12, 3, 16, 16)


def test_pictures_of_other_modes_and_endings(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
    grey = picture(40, 40, 0).convert("L")
    grey.save(tmp_path / "train" / "a" / "1.JPEG")
    picture(40, 40, 0).convert("CMYK").save(tmp_path / "train" / "a" / "2.jpg")
    picture(40, 40, 0).convert("RGBA").save(tmp_path / "train" / "a" / "3.png")
    data = ImageNet(tmp_path, "train", size=16)
    assert [data[index][0].shape for index in range(3)] == [(3, 16, 16)] * 3


def test_broken_pictures_are_errors(folder):
    data = ImageNet(folder, "train", size=16)
    whole = data.files[0].read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no picture"):
        data.files[0].write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read '.*n01440764_0.JPEG': .*Replace the fil"):
            data[0]
    png = data.files[0].with_suffix(".png")
    picture(20, 20, 0).save(png)
    png.write_bytes(png.read_bytes()[:60] + b"x" * 40)
    with pytest.raises(DataError, match=r"cannot read '.*n01440764_0.png'"):
        read_picture(png, purpose="x")


def test_wrong_layouts_are_errors(folder, made):
    with pytest.raises(
        DataError, match=r"no folder 'val' in '.*gone', nor in 'imagenet'.*image-net"
    ):
        ImageNet(folder / "gone", "test")
    loose = folder / "loose" / "val"
    loose.mkdir(parents=True)
    with pytest.raises(DataError, match=r"val' holds nothing, expected a folder for each class"):
        ImageNet(folder / "loose", "test")
    (loose / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"val' holds 1 pictures side by side, expected a folder for"
    ):
        ImageNet(folder / "loose", "test")
    (folder / "val" / "n09999999").mkdir()
    with pytest.raises(DataError, match=r"2 classes and .* 3, expected the same: 'n0999.*in 'val'"):
        ImageNet(folder, "train")
    (folder / "train" / "n09999999").mkdir()
    with pytest.raises(DataError, match=r"the class folder '.*train/n09999999' holds no picture"):
        ImageNet(folder, "train")
    (folder / "train" / "n00000000").mkdir()
    with pytest.raises(DataError, match=r"'n00000000' is only in 'train'"):
        ImageNet(folder, "test")


def test_only_the_test_pictures_are_there(folder):
    for path in (folder / "train").rglob("*.JPEG"):
        path.unlink()
    for name in CLASSES:
        (folder / "train" / name).rmdir()
    (folder / "train").rmdir()
    assert len(ImageNet(folder, "test")) == 6


def test_pictures_need_pillow(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"reading pictures needs PIL.Image. Run: .*vision"):
        ImageNet(made, "train")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, r"split must be 'train' or 'test', got 'val'"),
        ({"per_class": 0}, r"per_class must be at least 1, got 0"),
        ({"size": 0}, r"size must be at least 1, got 0"),
        ({"size": 32, "resize": 31}, r"resize must be at least size=32, got 31"),
        ({"scale": (0.5, 0.1)}, r"scale must be two numbers above 0 in order, got 0.5, 0.1"),
        ({"scale": (0.0, 1.0)}, r"scale must be two numbers above 0 in order, got 0.0, 1.0"),
    ],
)
def test_impossible_options_are_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ImageNet(tmp_path, **{"split": "train", **options})


# Recipes.


def tiny(**changes):
    content = {
        "name": "tiny",
        "data": {"name": "imagenet", "size": 32},
        "model": {"name": "resnet18", "channels": [2, 2, 3, 3], "classes": 2},
        "training": {
            "optimizer": "rmsprop",
            "lr": 1e-3,
            "momentum": 0.9,
            "schedule": "exponential",
            "decay": 0.5,
            "epochs": 3,
            "batch_size": 4,
            "flip": True,
            "accelerator": "cpu",
        },
        "evaluation": {"chips": 2, "sigmas": [0.0, 0.038]},
    }
    content["training"] |= changes
    return resolve(recipe_from(content))


def test_evaluation_sees_whole_pictures(made):
    recipe = tiny(validation=0.5)
    data = open_data(recipe, made)
    assert (data.input_shape, data.classes, data.samples["validation"]) == ((3, 32, 32), 2, 6)
    for loader in (data.watch, data.train_in_order, data.test):
        one, two = (next(iter(loader))[0] for _ in range(2))
        assert torch.equal(one, two)
    assert not set(data.watch.dataset.indices) & set(data.train_in_order.dataset.indices)


def test_a_run_that_was_cut_off_ends_with_the_same_weights(made, tmp_path, monkeypatch):
    """Random parts, flips and the shrinking rate go on where they were, from given weights."""
    begun = tiny().with_input_shape((3, 32, 32)).build_model()
    torch.save(begun.state_dict(), tmp_path / "begin.pth")
    recipe = tiny(start=str(tmp_path / "begin.pth"))
    whole = run.train(recipe, tmp_path / "whole", data_root=made, progress=False)
    rates = [row["learning_rate"] for row in whole.training.history]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4])

    from spikewvat.lab.trainer import checkpoint

    save = checkpoint.save

    def save_and_die(path, loop, position, identity):
        save(path, loop, position, identity)
        if position.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path / "cut", data_root=made, progress=False)
    monkeypatch.setattr(checkpoint, "save", save)
    run.train(recipe, tmp_path / "cut", data_root=made, progress=False, resume=True)
    one, two = (files.load(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    plain = run.train(tiny(), tmp_path / "plain", data_root=made, progress=False)
    assert math.isfinite(plain.curve.clean)


def test_a_small_network_learns_the_colours(made, tmp_path):
    recipe = tiny(optimizer="adam", momentum=None, lr=1e-2, decay=1.0, epochs=12)
    result = run.train(recipe, tmp_path / "out", data_root=made, progress=False)
    assert result.curve.clean > 0.8


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ("mobilenetv2_wvat", ["model.width=0.25"]),
        ("efficientnet_b0_wvat", []),
        ("efficientnet_b0_rmsprop", ["method.name=noise-injection"]),
    ],
)
def test_the_recipes_for_imagenet(row, changes, made, tmp_path):
    """Small pictures, two classes, weights from a file: all else as in the quick preset."""
    pytest.importorskip("spikewvat.lab.models.vision", exc_type=MissingExtraError)
    small = ["data.size=32", "model.classes=2", "training.batch_size=4", "training.workers=0"]
    options = [*small, "evaluation.chips=2", *changes]
    path = suites_folder() / "imagenet" / f"{row}.toml"
    model = resolve(read_recipe(path, overrides=options)).build_model()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    recipe = read_recipe(path, overrides=[*options, f"training.start={tmp_path / 'w.pth'}"])
    result = run.train(resolve(recipe), tmp_path / "out", data_root=made, progress=False)
    assert result.device == "gaussian:range=half-width"
    (report,) = result.curve
    assert (report.sigma, report.chips) == (0.038, 2)
    (epoch,) = result.training.history
    assert epoch["learning_rate"] == recipe.training.lr
    trained = files.load(tmp_path / "out" / "model.safetensors")
    weights = [name for name, tensor in model.state_dict().items() if tensor.dim() == 4]
    change = sum(float((trained[name] - model.state_dict()[name]).norm()) for name in weights)
    assert 0 < change < 0.2 * sum(float(model.state_dict()[name].norm()) for name in weights)


def test_paper_scale_of_the_recipes_for_imagenet():
    expected = {
        "resnet34_wvat": ("sgd", 5e-5, 1e-4, "constant", None, 10, 0.833),
        "mobilenetv2_wvat": ("sgd", 1e-4, 1e-4, "exponential", 0.95, 10, 1.0),
        "efficientnet_b0_wvat": ("rmsprop", 1e-5, 1e-5, "exponential", 0.965, 5, 1.0),
    }
    for row, values in expected.items():
        recipe = read_recipe(suites_folder() / "imagenet" / f"{row}.toml", preset="paper")
        plan, method = recipe.training, recipe.method.parameters
        found = (plan.optimizer, plan.lr, plan.weight_decay, plan.schedule, plan.decay, plan.epochs)
        assert (*found, method["gamma"]) == values
        assert (plan.momentum, method["p"], method["alpha"]) == (0.9, 1.0, 0.005)
        assert method["device"] == "gaussian:sigma=0.038,range=half-width"
