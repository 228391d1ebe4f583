"""The scale of likeness: known ends, counted choices, what is refused."""

import itertools

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.likeness import LikenessScale, Space, nearest_of
from lorascope.metrics.similarity import cosines


@pytest.fixture
def worlds(rng):
    """Base pictures around one place, images of the subject around another."""
    base, training = rng.normal(size=(8, 40)), rng.normal(size=(20, 40))
    training[:, :10] += 6
    held_out = rng.normal(size=(6, 40))
    held_out[:, :10] += 6
    return base, training, held_out


@pytest.mark.parametrize("references", [True, False])
def test_the_scale_goes_from_the_base_model_to_the_training_images(worlds, rng, references):
    base, training, held_out = worlds
    scale = LikenessScale.between(base, training, held_out if references else None)
    unseen = rng.normal(size=(50, 40))
    unseen[:, :10] += 6
    assert np.mean(list(scale.of_base(8).values())) == pytest.approx(0)
    assert scale.likeness(unseen).mean() == pytest.approx(1, abs=0.15)
    assert 0.2 < scale.likeness((base + unseen[:8]) / 2).mean() < 1


def test_fewer_references_do_not_make_samples_look_less_alike(rng):
    """Of many references the nearest are nearer; both ends are given the same chance."""
    base, training = rng.normal(size=(8, 10)), rng.normal(size=(60, 10))
    held_out, unseen = rng.normal(size=(4, 10)), rng.normal(size=(300, 10))
    for images in (training, held_out, unseen):
        images[:, :3] += 3
    scale = LikenessScale.between(base, training, held_out)
    assert scale.likeness(unseen).mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("references", [True, False])
def test_both_ends_hold_for_pictures_that_the_scale_has_never_seen(rng, references):
    """What a whitening was learnt from looks nearer than it is: each is left out in turn."""
    centre = np.zeros(300)
    centre[:60] = 1
    draw = [rng.normal(size=(n, 300)) for n in (8, 8, 6, 400, 400)]
    base, training, held_out, new_base, new_subject = draw
    for images in (training, held_out, new_subject):
        images += centre
    scale = LikenessScale.between(base, training, held_out if references else None)
    assert scale.likeness(new_base).mean() == pytest.approx(0, abs=0.25)
    assert scale.likeness(new_subject).mean() == pytest.approx(1, abs=0.25)


def test_what_differs_among_images_of_the_subject_counts_less(rng):
    """A background that the subject was drawn on must not make a stranger look like it."""
    subject, places = np.zeros(50), rng.normal(0, 2, (4, 50))
    subject[:5] = 2

    def draw(count, identity):
        where = places[rng.integers(0, 4, count)]
        return identity + where + rng.normal(0, 0.5, (count, 50))

    stranger = np.zeros(50)
    stranger[20:25] = 2
    base = np.concatenate([draw(1, rng.permutation(subject)) for _ in range(12)])
    training, held_out = draw(12, subject), draw(6, subject)
    right, wrong = draw(200, subject), draw(200, stranger)
    scale = LikenessScale.between(base, training, held_out)
    place = scale.lens.space.place
    plain = [nearest_of(cosines(place(some), place(held_out)), 6) for some in (right, wrong)]
    whitened = scale.likeness(right), scale.likeness(wrong)
    told = [float((a[:, None] > b[None]).mean()) for a, b in (plain, whitened)]
    assert told[1] > 0.9 > told[0]


def test_training_images_are_nearer_to_themselves_than_to_each_other(worlds):
    base, training, held_out = worlds
    against_themselves = LikenessScale.between(base, training).likeness(training)
    assert against_themselves.mean() > 1
    assert LikenessScale.between(base, training, held_out).likeness(training).mean() < (
        against_themselves.mean()
    )


def test_likeness_does_not_depend_on_the_unit_or_place_of_a_feature(worlds, rng):
    units, moved = rng.uniform(0.1, 10, 40), rng.normal(size=40)
    one = LikenessScale.between(*worlds).likeness(worlds[2])
    other = LikenessScale.between(*(w * units + moved for w in worlds))
    assert one == pytest.approx(other.likeness(worlds[2] * units + moved))


def test_a_feature_that_never_varies_does_no_harm(worlds):
    for world in worlds:
        world[:, 5] = 2
    assert np.isfinite(LikenessScale.between(*worlds).likeness(worlds[1])).all()


def test_no_scale_is_laid_where_an_end_is_missing_or_both_are_one(worlds, rng):
    base, training, held_out = worlds
    same = rng.normal(size=(30, 10))
    assert LikenessScale.between(same, same).likeness(same) is None
    assert LikenessScale.between(base, training[:1]).likeness(base) is None
    assert LikenessScale.between(base[:0], training, held_out).likeness(base) is None


def test_a_space_is_laid_over_what_there_is(worlds):
    base, training, _ = worlds
    assert Space.between(base, training[:0]).place(base).mean() == pytest.approx(0)
    alone = Space.between(base[:0], training).place(training)
    assert alone.std(axis=0) == pytest.approx(np.ones(40))
    with pytest.raises(ShapeError, match="no space"):
        Space.between(base[:0], training[:0])
    with pytest.raises(ShapeError, match="no space"):
        Space.between(base[:, :3], training)


@pytest.mark.parametrize("among", [1, 2, 3, 5, 7])
def test_the_nearest_of_so_many_is_the_mean_over_every_choice(rng, among):
    found = rng.normal(size=(4, 7))
    choices = itertools.combinations(range(7), among)
    means = [np.sort(found[:, list(some)], axis=1)[:, -3:].mean(axis=1) for some in choices]
    assert nearest_of(found, among) == pytest.approx(np.mean(means, axis=0))


def test_the_nearest_of_hundreds_can_still_be_counted(rng):
    found = rng.normal(size=(2, 900))
    assert np.isfinite(nearest_of(found, 450)).all()
    assert nearest_of(np.ones((1, 900)), 450) == pytest.approx([1])


@pytest.mark.parametrize("among", [0, 4])
def test_more_references_than_there_are_cannot_be_chosen(among):
    with pytest.raises(ShapeError, match="cannot be chosen"):
        nearest_of(np.ones((2, 3)), among)


def test_a_scale_needs_a_reference(worlds):
    with pytest.raises(ShapeError, match="no reference"):
        LikenessScale.between(worlds[0], worlds[1], worlds[2][:0])
