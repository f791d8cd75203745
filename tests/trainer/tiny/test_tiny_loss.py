"""The loss of `tiny`, held against one prompt at a time."""

from itertools import permutations

import numpy as np
import pytest
import torch

from alps.trainer.tiny.loss import mask_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def some_prompts(count=6, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 3, side, side, generator=generator)
    iou = torch.rand(count, 3, generator=generator)
    truth = torch.randn(count, 3, side, side, generator=generator).clamp(0, 1)
    valid = torch.rand(count, 3, generator=generator) > 0.3
    valid[0], valid[1] = True, False  # all three, and a point with no mask at all
    return logits, iou, truth, valid


def pair_cost(logits, truth, balance):
    """One output against one true mask, pixel by pixel."""
    p, t = 1 / (1 + np.exp(-logits)), truth
    inside, outside = -np.log(p), -np.log(1 - p)
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    focal = (t * (1 - p) ** 2 * inside + (1 - t) * p**2 * outside).mean() / 2
    balanced = (t * inside).sum() / (t.sum() + 1)
    balanced += ((1 - t) * outside).sum() / ((1 - t).sum() + 1)
    return dice + 10 * focal + balance * balanced


def naive_loss(logits, iou, truth, valid, balance):
    """(total, best IoU, picked IoU, IoU error), prompt by prompt."""
    logits, iou, truth = (x.double().numpy() for x in (logits, iou, truth))
    costs, everywhere, best, picked, errors = [], [], [], [], []
    for s in range(len(logits)):
        there = [g for g in range(3) if valid[s, g]]
        if not there:
            continue
        cost = {
            (g, m): pair_cost(logits[s, m], truth[s, g], balance) for g in there for m in range(3)
        }
        costs.append(min(sum(cost[g, order[g]] for g in there) for order in permutations(range(3))))
        everywhere += cost.values()
        overlap = np.zeros((3, 3))
        for g in there:
            for m in range(3):
                a, b = logits[s, m] > 0, truth[s, g] > 0.5
                overlap[g, m] = (a & b).sum() / max((a | b).sum(), 1)
        best += [overlap[g].max() for g in there]
        picked.append(overlap[:, iou[s].argmax()].max())
        errors += [iou[s, m] - overlap[:, m].max() for m in range(3)]
    masks = valid.sum().item()
    total = sum(costs) / masks + 0.05 * sum(everywhere) / (3 * masks) + np.mean(np.square(errors))
    return total, np.mean(best), np.mean(picked), np.mean(np.abs(errors))


@pytest.mark.parametrize("balance", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_loss_prompt_by_prompt(balance, seed):
    prompts = some_prompts(seed=seed)
    loss = mask_loss(*prompts, balance=balance)
    found = (loss.total, loss.best_iou, loss.picked_iou, loss.iou_error)
    expected = naive_loss(*prompts, balance)
    assert [value.item() for value in found] == pytest.approx(expected, rel=1e-5)


def test_loss_does_not_care_which_output_fits():
    """Outputs and true masks may be named in any order; the best assignment is the same."""
    logits, iou, truth, valid = some_prompts()
    valid[:] = True
    expected = mask_loss(logits, iou, truth, valid, 0.5).total
    for order in permutations(range(3)):
        order = list(order)
        turned = mask_loss(logits[:, order], iou[:, order], truth, valid, 0.5).total
        assert turned.item() == pytest.approx(expected.item(), rel=1e-5)


def test_right_masks_cost_next_to_nothing():
    truth = torch.zeros(1, 3, 8, 8)
    truth[0, 0, :2], truth[0, 1, :4], truth[0, 2, :6] = 1, 1, 1
    logits = (40 * truth - 20)[:, [2, 0, 1]]
    loss = mask_loss(logits, torch.ones(1, 3), truth, torch.ones(1, 3, dtype=torch.bool), 1.0)
    assert loss.best_iou == loss.picked_iou == 1 and loss.iou_error == 0
    swapped = mask_loss(-logits, torch.zeros(1, 3), truth, torch.ones(1, 3, dtype=torch.bool), 1.0)
    assert 20 * loss.total < swapped.total  # not 0: each pair counts a little


def test_loss_of_a_single_output():
    """What boxes ask: one mask, one truth, no assignment to choose."""
    logits, iou, truth, valid = (x[:, :1] for x in some_prompts())
    valid[2] = True
    loss = mask_loss(logits, iou, truth, valid, 0.5)
    rows = np.flatnonzero(valid[:, 0])
    pairs = [(logits[s, 0].double().numpy(), truth[s, 0].double().numpy()) for s in rows]
    costs = [pair_cost(*pair, 0.5) for pair in pairs]
    overlaps = [((x > 0) & (t > 0.5)).sum() / ((x > 0) | (t > 0.5)).sum() for x, t in pairs]
    errors = iou[rows, 0].numpy() - overlaps
    expected = 1.05 * np.mean(costs) + np.mean(np.square(errors))
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert loss.best_iou.item() == pytest.approx(np.mean(overlaps), rel=1e-5)


def test_gradient_descends():
    logits, iou, truth, valid = some_prompts()
    logits.requires_grad_(), iou.requires_grad_()
    loss = mask_loss(logits, iou, truth, valid, 0.5).total
    loss.backward()
    assert not logits.grad[1].any() and not iou.grad[1].any()  # nothing is true of prompt 1
    step = mask_loss(logits - 0.1 * logits.grad, iou - 0.1 * iou.grad, truth, valid, 0.5).total
    assert step < loss


def test_a_batch_with_no_true_mask_teaches_nothing():
    logits, iou, truth, valid = some_prompts()
    logits.requires_grad_(), iou.requires_grad_()
    loss = mask_loss(logits, iou, truth, valid & False, 0.5)
    loss.total.backward()
    assert loss.total == 0 and not logits.grad.any() and not iou.grad.any()
    assert all(torch.isfinite(v) for v in (loss.best_iou, loss.picked_iou, loss.iou_error))
