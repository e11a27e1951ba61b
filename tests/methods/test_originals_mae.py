"""MAE against the numbers of facebookresearch/mae, and what it would take to be wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from g2sd_deploy.methods import mae
from g2sd_deploy.methods.mae import MaeLearner, masked_pixel_loss
from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.masked import MaskedAutoencoder, mask_from_noise

CASES = ("raw_pixels", "normed_pixels", "normed_pixels_ratio_0.6", "quiet_images")


@pytest.fixture
def theirs(original: Callable[[str], Any]) -> Any:
    return original("mae")


def learner(theirs: Any, case: str, **changed: Any) -> MaeLearner:
    encoder, decoder = theirs.specs("mae")
    model = MaskedAutoencoder(encoder, decoder)
    theirs.fill("mae", model)
    settings = {name: theirs.cases[case][name] for name in ("mask_ratio", "norm_pix")}
    return MaeLearner(model, **{**settings, **changed})


def views_of(theirs: Any, case: str) -> Views:
    """The inputs of a step; quiet images have variances as small as the eps that is added to them."""
    views: Views = theirs.views(times=theirs.cases[case]["images_times"])
    return views


def loss_of(theirs: Any, case: str, **changed: Any) -> Tensor:
    loss: Tensor = learner(theirs, case, **changed)(views_of(theirs, case))["pixels"]
    return loss


def test_the_positions_are_theirs(theirs: Any) -> None:
    model = learner(theirs, CASES[0]).student
    theirs.cases["tables"] = theirs.data
    theirs.check("tables", pos_embed=model.encoder.pos_embed, decoder_pos_embed=model.decoder.pos_embed)


@pytest.mark.parametrize("case", CASES)
def test_the_same_noise_hides_the_same_patches(theirs: Any, case: str) -> None:
    mask = mask_from_noise(theirs.views().mask_noise, theirs.cases[case]["mask_ratio"])
    theirs.check(case, mask=mask.hidden, keep_ids=mask.keep_ids, restore_ids=mask.restore_ids)


def test_as_many_patches_stay_visible_for_every_ratio_and_grid(theirs: Any) -> None:
    for tokens, ratio, visible in theirs.data["visible_patches"]:
        assert mask_from_noise(torch.rand(1, tokens), ratio).keep_ids.shape[1] == visible, (tokens, ratio)


@pytest.mark.parametrize("case", CASES)
def test_the_predicted_pixels_are_theirs(theirs: Any, case: str) -> None:
    views = views_of(theirs, case)
    mask = mask_from_noise(views.mask_noise, theirs.cases[case]["mask_ratio"])
    predicted = learner(theirs, case).student(views.images, mask)
    in_their_order = predicted.unflatten(2, (3, 8, 8)).movedim(2, 4).flatten(2)  # a pixel's channels lie side by side
    theirs.check(case, pred=in_their_order)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_and_every_gradient_are_theirs(theirs: Any, case: str) -> None:
    ours = learner(theirs, case)
    loss = ours(views_of(theirs, case))["pixels"]
    theirs.check(case, loss=loss)
    theirs.check_gradients(case, ours, loss)


@pytest.mark.parametrize("case", CASES)
def test_flipping_norm_pix_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str) -> None:
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=loss_of(theirs, case, norm_pix=not theirs.cases[case]["norm_pix"]))


BROKEN: dict[str, Callable[[Tensor, Tensor, Tensor, bool], Tensor]] = {
    "all patches averaged": lambda p, x, h, n: masked_pixel_loss(p, x, torch.ones_like(h), norm_pix=n),
    "visible patches scored": lambda p, x, h, n: masked_pixel_loss(p, x, ~h, norm_pix=n),
    "absolute error": lambda p, x, h, n: (p - x).abs().mean(-1)[h].mean(),
    "pixels of another patch": lambda p, x, h, n: masked_pixel_loss(p, x.roll(1, dims=1), h, norm_pix=n),
    "pixels in another order": lambda p, x, h, n: masked_pixel_loss(p, x.unflatten(2, (3, -1)).transpose(2, 3).flatten(2), h, norm_pix=n),
    "biased variance": lambda p, x, h, n: masked_pixel_loss(
        p, (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0), h, norm_pix=False
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_pixel_loss_is_noticed(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    theirs.check("normed_pixels", loss=loss_of(theirs, "normed_pixels"))
    monkeypatch.setattr(mae, "masked_pixel_loss", lambda p, x, h, *, norm_pix: BROKEN[broken](p, x, h, norm_pix))
    with pytest.raises(disagreement, match="loss"):
        theirs.check("normed_pixels", loss=loss_of(theirs, "normed_pixels"))


def test_another_eps_is_noticed_where_patches_have_little_contrast(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(predicted: Tensor, pixels: Tensor, hidden: Tensor, *, norm_pix: bool) -> Tensor:
        normed = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-5).sqrt()
        return masked_pixel_loss(predicted, normed, hidden, norm_pix=False)

    monkeypatch.setattr(mae, "masked_pixel_loss", wrong)
    theirs.check("normed_pixels", loss=loss_of(theirs, "normed_pixels"))
    with pytest.raises(disagreement, match="loss"):
        theirs.check("quiet_images", loss=loss_of(theirs, "quiet_images"))


def test_other_hidden_patches_are_noticed(theirs: Any, disagreement: type[AssertionError]) -> None:
    with pytest.raises(disagreement, match="loss"):
        theirs.check("raw_pixels", loss=loss_of(theirs, "raw_pixels", mask_ratio=0.7))
