import torch
from torch import Generator

from vitfeat.demo.augment import Augmentation
from vitfeat.demo.batches import HIDDEN, epoch, read


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_no_augmentation_is_the_identity() -> None:
    images = read("test", labelled=False).images[:8]
    torch.testing.assert_close(Augmentation()(images, generator()), images, atol=1e-5, rtol=0)


def test_views_stay_in_range_and_follow_the_generator() -> None:
    images = read("test", labelled=False).images[:16]
    view = Augmentation(
        (0.3, 0.9), rotation=20, shear=0.2, jitter=0.5, blur=1.0, noise=0.2, size=16
    )
    before = torch.random.get_rng_state()
    first, again, other = (view(images, generator(s)) for s in (1, 1, 2))
    assert first.shape == (16, 3, 16, 16)
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rotation_turns_about_the_centre() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 4:28, 15:17] = 1.0
    turned = Augmentation(rotation=30)(image, generator())
    # The ink stays, the columns it covers widen.
    assert abs(float(turned.sum() / image.sum()) - 1) < 0.05
    assert (turned[0, 0].sum(0) > 0.5).sum() > 2
    row, column = (turned[0, 0].sum(i) @ torch.arange(32.0) / turned[0, 0].sum() for i in (1, 0))
    assert abs(float(row) - 15.5) < 0.2
    assert abs(float(column) - 15.5) < 0.2


def test_small_crops_enlarge() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., 12:20, 12:20] = 1.0
    crop = Augmentation(area=(0.25, 0.25))(image.expand(64, -1, -1, -1), generator())
    # Half the side, so four times the area wherever the square stays inside the crop.
    assert abs(float(crop.sum(dim=(1, 2, 3)).max() / image.sum()) - 4) < 0.05


def test_labels_are_hidden_unless_asked_for() -> None:
    assert (read("train", labelled=False).labels == HIDDEN).all()
    assert read("train", labelled=True).labels.unique().tolist() == list(range(10))


def test_an_epoch_shows_no_image_twice() -> None:
    data = read("test", labelled=True)
    data.labels[:] = torch.arange(599)
    batches = list(epoch(data, 100, generator()))
    assert len(batches) == 5
    assert len(torch.cat([b.labels for b in batches]).unique()) == 500
