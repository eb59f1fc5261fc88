import pytest
import torch
from pydantic import ValidationError

from hard_ray.augmentors.base import AugmentationInput
from hard_ray.augmentors.build import build_augmentor
from hard_ray.augmentors.sequence import Chain
from hard_ray.config.augmentor import SequenceAugmentor
from hard_ray.config.loader import load_config
from tests.augmentors.made import images_for, make


def test_augmentors_are_applied_in_order_each_to_its_own_noise():
    first, second = make("affine"), make("vae")
    chain = Chain([("affine", first), ("vae", second)])
    assert chain.noise_dim == first.noise_dim + second.noise_dim
    given = images_for(chain)
    once = first(AugmentationInput(given.images, given.noise[:, : first.noise_dim]))
    twice = second(AugmentationInput(once, given.noise[:, first.noise_dim :]))
    assert torch.equal(chain(given), twice)


def test_a_mixture_of_mixtures_has_the_product_of_their_sources():
    first, second = make("mix"), make("mix")
    chain = Chain([("mix", first), ("mix", second)])
    given = images_for(chain, rows=5)
    one = first.augment(AugmentationInput(given.images, given.noise[:, : first.noise_dim]))
    two = second.augment(AugmentationInput(one.images, given.noise[:, first.noise_dim :]))
    torch.testing.assert_close(chain.augment(given).sources, two.sources @ one.sources)


def test_sources_survive_an_augmentor_that_mixes_nothing():
    chain = Chain([("mix", make("mix")), ("affine", make("affine"))])
    given = images_for(chain)
    alone = chain.parts["mix"].augment(AugmentationInput(given.images, given.noise[:, : chain.parts["mix"].noise_dim]))
    assert torch.equal(chain.augment(given).sources, alone.sources)


def test_names_that_stand_twice_are_numbered():
    chain = make("sequence")
    names = {name.split(".")[0] for name in chain.samples(images_for(chain))}
    assert names == {"mix1", "affine", "mix2", "vae"}


def test_the_strength_of_the_sequence_multiplies_that_of_its_parts():
    config = SequenceAugmentor(strength=0.5, augmentors=[{"kind": "affine", "strength": 0.5}, {"kind": "mix"}])
    chain = build_augmentor(config, in_chans=1, img_size=20)
    assert [part.config.strength for part in chain.parts.values()] == [0.25, 0.5]
    still = build_augmentor(config.model_copy(update={"strength": 0.0}), in_chans=1, img_size=20)
    given = images_for(still)
    assert still(given) is given.images


def test_a_sequence_is_configured_from_the_command_line():
    config = load_config(
        overrides=["augmentor.kind=sequence", "augmentor.augmentors=[{kind: affine, max_shift: 0.1}, {kind: mix}]"]
    )
    assert [part.kind for part in config.augmentor.augmentors] == ["affine", "mix"]
    with pytest.raises(ValidationError):
        SequenceAugmentor(augmentors=[])
