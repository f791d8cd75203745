"""Our network against the original's modules, with the same weights: encoder, prompts, decoder."""

import copy
from dataclasses import replace

import pytest
import torch
from stock_sam import SMALL, ours_like, picture, stock_sam

from alps.engine import sam as package
from alps.engine.sam import OFFICIAL, Sam, SamConfig
from alps.engine.sam.image_encoder import join_windows, split_windows

# 8 x 8 patches in windows of 3: padded below and right; then a block that sees everything.
CONFIGS = {
    "windows that need padding": SMALL,
    "windows that fit": replace(SMALL, window_size=4, encoder_depth=3, global_blocks=(2,)),
    "a window larger than the grid": replace(SMALL, window_size=11, global_blocks=()),
    "everything global": replace(SMALL, encoder_depth=1, global_blocks=(0,)),
    "a deeper decoder": replace(SMALL, decoder_depth=3, decoder_heads=4, iou_head_depth=2),
}


@pytest.fixture(autouse=True, scope="module")
def no_gradients(one_thread):
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def pair(request):
    """(original, ours) with the same random weights, and their dimensions."""
    stock = stock_sam(request.param)
    return stock, ours_like(stock, request.param), request.param


@pytest.fixture(scope="module")
def small():
    stock = stock_sam()
    return stock, ours_like(stock)


def random(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def points(count, each, seed=0):
    """(count, each, 2) positions in pixels of the input, and labels -1, 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, each, 2, generator=generator) * (SMALL.image_size - 1)
    return xy, torch.randint(-1, 2, (count, each), generator=generator)


def assert_close(ours, theirs):
    """The same up to float32 rounding, relative to the largest value."""
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().item()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * scale)


# --- the parts


def test_state_dict_has_the_original_names_and_shapes(pair):
    stock, ours, _ = pair
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for model in (stock, ours)
    ]
    assert shapes[0] == shapes[1]


def test_encoder(pair):
    stock, ours, config = pair
    pixels = random(2, 3, config.image_size, config.image_size)
    theirs = stock.image_encoder(pixels)
    assert theirs.std() > 0.1
    assert_close(ours.encode(pixels), theirs)


def test_every_weight_of_the_encoder_counts(small):
    """Relative positions and windows are not idle: without them the embedding is another."""
    stock, ours = small
    pixels = random(1, 3, 64, 64)
    before = ours.encode(pixels)
    changed = ours_like(stock)
    for block in changed.image_encoder.blocks:
        block.attn.rel_pos_h.zero_()
    assert (changed.encode(pixels) - before).abs().max() > 1e-2
    wider = Sam(replace(SMALL, window_size=3, global_blocks=(0, 1))).eval()
    weights = stock.state_dict()
    for side in "hw":  # positions of the first block for a whole grid, the window's in the middle
        name = f"image_encoder.blocks.0.attn.rel_pos_{side}"
        weights[name] = torch.nn.functional.pad(weights[name], (0, 0, 5, 5))
    wider.load_state_dict(weights)
    assert (wider.encode(pixels) - before).abs().max() > 1e-2


def test_images_of_a_batch_do_not_see_each_other(small):
    _, ours = small
    pixels = random(3, 3, 64, 64)
    one_by_one = torch.cat([ours.encode(pixels[i : i + 1]) for i in range(3)])
    assert_close(ours.encode(pixels), one_by_one)


@pytest.mark.parametrize("size", [(64, 64), (64, 40), (33, 64), (1, 1)])
def test_normalisation_and_padding(small, size):
    stock, ours = small
    image = torch.from_numpy(picture(*size)).permute(2, 0, 1)[None]
    assert_close(ours.normalise(image), stock.preprocess(image))


@pytest.mark.parametrize(("side", "window"), [(8, 3), (9, 3), (2, 5), (7, 1)])
def test_windows_there_and_back(side, window):
    tokens = random(2, side, side + 1, 4)
    windows, padded = split_windows(tokens, window)
    rows, columns = (-(-n // window) for n in (side, side + 1))
    assert windows.shape == (2 * rows * columns, window, window, 4)
    assert padded == (rows * window, columns * window)
    assert (join_windows(windows, padded, (side, side + 1)) == tokens).all()
    first = tokens[0, :window, :window]
    assert (windows[0, : first.shape[0], : first.shape[1]] == first).all()


# --- prompts


def test_dense_positions(pair):
    stock, ours, _ = pair
    assert_close(ours.prompt_encoder.dense_positions(), stock.prompt_encoder.get_dense_pe()[0])


@pytest.mark.parametrize("each", [1, 2, 5])
def test_points_foreground_background_and_none(small, each):
    stock, ours = small
    xy, labels = points(40, each)
    assert set(labels.flatten().tolist()) == {-1, 0, 1}
    theirs, _ = stock.prompt_encoder(points=(xy, labels), boxes=None, masks=None)
    assert_close(ours.prompt_encoder.points(xy, labels), theirs)


def test_boxes(small):
    stock, ours = small
    boxes = random(7, 4, scale=20).abs()
    theirs, _ = stock.prompt_encoder(points=None, boxes=boxes, masks=None)
    assert_close(ours.prompt_encoder.boxes(boxes), theirs)


def test_points_with_a_box(small):
    stock, ours = small
    xy, labels = points(6, 3)
    boxes = random(6, 4, scale=20).abs()
    theirs, _ = stock.prompt_encoder(points=(xy, labels), boxes=boxes, masks=None)
    encoder = ours.prompt_encoder
    mine = torch.cat([encoder.points(xy, labels, pad=False), encoder.boxes(boxes)], dim=-2)
    assert_close(mine, theirs)


def test_mask_prompts_and_none(small):
    stock, ours = small
    side = SMALL.low_resolution_size
    masks = random(3, 1, side, side, scale=5).double()
    # Norms over two channels magnify float32 rounding: so both in float64.
    original, own = (copy.deepcopy(m.prompt_encoder).double() for m in (stock, ours))
    _, theirs = original(points=None, boxes=None, masks=masks)
    torch.testing.assert_close(own.masks(masks), theirs, rtol=0, atol=1e-9)
    _, theirs = stock.prompt_encoder(points=points(2, 1), boxes=None, masks=None)
    mine = ours.prompt_encoder.no_mask().expand(2, -1, SMALL.embedding_size, SMALL.embedding_size)
    assert_close(mine, theirs)


# --- the decoder


def stock_masks(stock, embedding, sparse, dense, multimask):
    return stock.mask_decoder(
        image_embeddings=embedding,
        image_pe=stock.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )


def test_decoder_after_a_point_each(pair):
    stock, ours, config = pair
    embedding = random(1, config.embedding_channels, config.embedding_size, config.embedding_size)
    xy = points(9, 1)[0]
    labels = torch.ones(9, 1, dtype=torch.int64)
    sparse, dense = stock.prompt_encoder(points=(xy, labels), boxes=None, masks=None)
    decoded = ours.decode_points(embedding, xy.transpose(0, 1))
    logits = ours.mask_decoder.masks(decoded.mask_tokens[0], decoded.image_tokens[0])
    assert decoded.mask_tokens.shape == (1, 9, 4, config.embedding_channels)
    for multimask, outputs in ((True, slice(1, None)), (False, slice(0, 1))):
        masks, iou = stock_masks(stock, embedding, sparse, dense, multimask)
        assert masks.std() > 0.1  # worth comparing
        assert_close(logits[:, outputs], masks)
        assert_close(decoded.predicted_iou[0][:, outputs], iou)


def test_decoder_after_several_points_a_box_and_a_mask(small):
    stock, ours = small
    side = SMALL.low_resolution_size
    embedding = random(1, SMALL.embedding_channels, SMALL.embedding_size, SMALL.embedding_size)
    xy, labels = points(5, 3)
    boxes, masks = random(5, 4, scale=20).abs(), random(5, 1, side, side, seed=1)
    sparse, dense = stock.prompt_encoder(points=(xy, labels), boxes=boxes, masks=masks)
    encoder = ours.prompt_encoder
    prompt = torch.cat([encoder.points(xy, labels, pad=False), encoder.boxes(boxes)], dim=-2)
    # A mask is added to the embedding, so each prompt has an image of its own.
    decoded = ours.mask_decoder.transform(
        embedding + encoder.masks(masks), encoder.dense_positions(), prompt[:, None]
    )
    logits = ours.mask_decoder.masks(
        decoded.mask_tokens.flatten(0, 1), decoded.image_tokens.flatten(0, 1)
    )
    theirs, iou = stock_masks(stock, embedding, sparse, dense, True)
    assert_close(logits[:, 1:], theirs)
    assert_close(decoded.predicted_iou[:, 0, 1:], iou)


def test_batches_of_images_and_prompts_equal_one_by_one(small):
    _, ours = small
    shape = (SMALL.embedding_channels, SMALL.embedding_size, SMALL.embedding_size)
    embedding, xy = random(3, *shape), points(3, 5)[0]
    together = ours.decode_points(embedding, xy)
    logits = ours.mask_decoder.masks(
        together.mask_tokens.flatten(0, 1), together.image_tokens.flatten(0, 1)
    ).unflatten(0, (3, 5))
    for image in range(3):
        for prompt in range(5):
            alone = ours.decode_points(
                embedding[image : image + 1], xy[image : image + 1, prompt : prompt + 1]
            )
            masks = ours.mask_decoder.masks(alone.mask_tokens[0], alone.image_tokens[0])
            assert_close(logits[image, prompt][None], masks)
            assert_close(together.predicted_iou[image, prompt], alone.predicted_iou[0, 0])
    assert (logits[0, 0] - logits[1, 0]).abs().max() > 0.1
    assert (logits[0, 0] - logits[0, 1]).abs().max() > 0.1


def test_masks_of_chosen_prompts_only(small):
    """What a caller leaves out between the two halves changes nothing for the rest."""
    _, ours = small
    shape = (SMALL.embedding_channels, SMALL.embedding_size, SMALL.embedding_size)
    decoded = ours.decode_points(random(1, *shape), points(1, 6)[0])
    every = ours.mask_decoder.masks(decoded.mask_tokens[0], decoded.image_tokens[0])
    chosen = [4, 1]
    some = ours.mask_decoder.masks(decoded.mask_tokens[0, chosen], decoded.image_tokens[0, chosen])
    assert_close(some, every[chosen])


# --- dimensions


def test_official_dimensions():
    million = {"vit_b": 93.7, "vit_l": 312.3, "vit_h": 641.1}  # parameters, of the paper's models
    with torch.device("meta"):
        for name, config in OFFICIAL.items():
            count = sum(parameter.numel() for parameter in Sam(config).parameters())
            assert count / 1e6 == pytest.approx(million[name], abs=0.05)


def test_sides_follow_from_the_dimensions():
    assert (SMALL.embedding_size, SMALL.low_resolution_size) == (8, 32)
    assert SamConfig().embedding_size == 64 and SamConfig().low_resolution_size == 256


def test_the_package_offers_what_it_names():
    assert {name for name in package.__all__ if getattr(package, name)} == set(package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Sham'"):
        _ = package.Sham
