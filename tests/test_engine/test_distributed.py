"""Two processes over gloo: what one of them lacks must neither stop the other nor change what is learned.

The processes are started once for the whole file and run everything that the tests look at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import DISTILLED, FAMILY, NARROW, random_batch, small_detector, with_fixed_norms
from hosts import host_config
from started_run import in_processes
from tolerances import about
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_iouquery.engine.hooks import GradientShareHook

SIZE = (64, 64)
PROCESSES, STEPS = 2, 3
COUNTS = {'four boxes and one': [4, 1], 'three boxes and none': [3, 0]}
PLAIN = {**NARROW, 'bbox_head__denoising': None}
EXACT = {**NARROW, 'bbox_head__denoising__label_noise_ratio': 0.0, 'bbox_head__denoising__box_noise_scale': 0.0}
D_FINE = FAMILY['D-FINE']
# distillation is weighed by the numbers of each process's batch
PLAIN_D_FINE = {**D_FINE, 'bbox_head__denoising': None, 'bbox_head__criterion__loss_ddf': None}


def quiet(model: nn.Module) -> nn.Module:
    model.init_weights()
    return with_fixed_norms(model.train())


def built(**arguments: Any) -> nn.Module:
    """Same weights in every process."""
    torch.manual_seed(0)
    return quiet(small_detector(**arguments))


def dino() -> nn.Module:
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    cfg = host_config('DINO', type='IoUQueryDINO', query_selector={'type': 'IoUAwareQuerySelector'})
    cfg.bbox_head.num_classes = 5
    return quiet(MODELS.build(cfg))


def train_with_an_empty_rank(rank: int, build: Callable[[], nn.Module]) -> dict[str, Any]:
    model = build()
    wrapped = DistributedDataParallel(model, find_unused_parameters=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    names, losses = set(), []
    for step in range(STEPS):
        torch.manual_seed(10 * step + rank)
        images, samples = random_batch([0] if rank == 1 else [3], *SIZE)
        log = wrapped(images, samples, mode='loss')
        names.add(tuple(log))
        loss = total(log)
        optimizer.zero_grad()
        loss.backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without, without
        optimizer.step()
        losses.append(float(loss))
    digests = {name: sha256(weight.numpy().tobytes()).hexdigest() for name, weight in model.state_dict().items()}
    return {'names': names, 'losses': losses, 'weights': digests}


def total(log: dict[str, Any]) -> torch.Tensor:
    return sum(sum(value) if isinstance(value, list) else value for value in log.values())


def images_and_samples(counts: list[int]) -> tuple[torch.Tensor, list]:
    """The same ones for every caller, in double precision."""
    torch.manual_seed(7)
    images, samples = random_batch(counts, *SIZE)
    for sample in samples:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
    return images.double(), samples


def losses_and_gradients(
    chosen: slice, counts: list[int], arguments: dict[str, Any], distributed: bool = False
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Of some of the images; denoising draws the same noise for the same ones."""
    model = built(**arguments).double()
    images, samples = images_and_samples(counts)
    called = DistributedDataParallel(model, find_unused_parameters=False) if distributed else model
    torch.manual_seed(chosen.start or 0)
    log = called(images[chosen], copy.deepcopy(samples[chosen]), mode='loss')
    total(log).backward()
    return {name: float(loss) for name, loss in log.items()}, {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


def of_one_image(rank: int, counts: list[int], arguments: dict[str, Any]) -> Any:
    return losses_and_gradients(slice(rank, rank + 1), counts, arguments, distributed=True)


def distil_by_shares(rank: int) -> dict[str, Any]:
    """An epoch of a step by other images in each process, and one by gradients that the processes have not averaged.

    Of these 6 % are the encoder's in the first process, and 10 % in the second.
    """
    model, log = built(**NARROW, **DISTILLED), dict[str, Any](weights=[])
    wrapped, optimizer = DistributedDataParallel(model), torch.optim.SGD(model.parameters(), lr=0.0)
    hook, hub = GradientShareHook(rho=11, delta=1, default_weight=20), SimpleNamespace(update_scalar=log.__setitem__)
    runner: Any = SimpleNamespace(
        model=wrapped,
        optim_wrapper=SimpleNamespace(optimizer=optimizer),
        epoch=0,
        iter=0,
        max_epochs=2,
        logger=SimpleNamespace(info=lambda text: None),
        message_hub=hub,
    )
    hook.before_train(runner)
    torch.manual_seed(rank)
    loss = total(wrapped(*random_batch([1 + rank], *SIZE), mode='loss'))
    loss.backward()
    log['loss'] = float(loss)
    for epoch in range(2):
        if epoch:
            optimizer.zero_grad()
            inside = 0.06 + 0.04 * rank
            for module, share in ((model.neck.encoder, inside), (model.bbox_head, 1 - inside)):
                parameter = next(module.parameters())
                parameter.grad = torch.zeros_like(parameter)
                parameter.grad.view(-1)[0] = share
        optimizer.step()
        hook.after_train_epoch(runner)
        runner.epoch += 1
        log['weights'].append(model.data_preprocessor.loss_distill.loss_weight)
    return log


WORK: dict[str, Callable[[int], Any]] = {
    'an empty rank': partial(train_with_an_empty_rank, build=partial(built, **NARROW)),
    'an empty rank, frozen stages': partial(
        train_with_an_empty_rank, build=partial(built, **NARROW, backbone__frozen_stages=2)
    ),
    'an empty rank, D-FINE': partial(train_with_an_empty_rank, build=partial(built, **D_FINE)),
    'an empty rank, distilled': partial(train_with_an_empty_rank, build=partial(built, **NARROW, **DISTILLED)),
    'an empty rank, IoUQueryDINO': partial(train_with_an_empty_rank, build=dino),
    'shares of the gradients': distil_by_shares,
    **{f'plain, {name}': partial(of_one_image, counts=counts, arguments=PLAIN) for name, counts in COUNTS.items()},
    **{
        f'plain D-FINE, {name}': partial(of_one_image, counts=counts, arguments=PLAIN_D_FINE)
        for name, counts in COUNTS.items()
    },
    **{f'noisy, {name}': partial(of_one_image, counts=counts, arguments=NARROW) for name, counts in COUNTS.items()},
    'denoising, two boxes each': partial(of_one_image, counts=[2, 2], arguments=EXACT),
}


def process(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=PROCESSES)
    torch.save({name: task(rank) for name, task in WORK.items()}, Path(folder) / f'rank_{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def left(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each process leaves; a failing or hanging one fails the tests."""
    folder = tmp_path_factory.mktemp('processes')
    in_processes(process, str(folder / 'store'), str(folder), count=PROCESSES)
    return [torch.load(folder / f'rank_{rank}.pt') for rank in range(PROCESSES)]


@pytest.mark.parametrize('task', [name for name in WORK if name.startswith('an empty rank')])
def test_a_rank_without_boxes(task: str, left: list[dict[str, Any]]) -> None:
    """Three steps, each with another set of images and one rank empty: no parameter unused, equal weights after."""
    first, second = (result[task] for result in left)
    assert first['names'] == second['names'] and len(first['names']) == 1
    assert any('dn_loss' in name for name in next(iter(first['names'])))
    assert all(torch.tensor(result['losses']).isfinite().all() for result in (first, second))
    assert second['losses'][0] > 0  # of the class scores alone
    assert first['weights'] == second['weights']


def test_the_weight_of_a_distillation_is_the_same_in_all_processes(left: list[dict[str, Any]]) -> None:
    """By the mean of their shares, in a wrapped model: 6 % here and 10 % there are 8 %, which are to become 12 %."""
    first, second = (result['shares of the gradients'] for result in left)
    assert first['loss'] != second['loss'] and first['weights'] == second['weights']
    assert first['train/gradient_share'] == second['train/gradient_share'] == pytest.approx(8.0)
    before, after = first['weights']
    assert before != 5.0 and after == about(before * (0.12 * 0.92) / (0.08 * 0.88), 'sum')


@pytest.mark.parametrize('task', [name for name in WORK if name.startswith(('plain', 'denoising'))])
def test_two_processes_of_one_image_are_one_of_two(task: str, left: list[dict[str, Any]]) -> None:
    """Losses are divided by the boxes of all processes: 4 boxes here and 1 there count as 5, 3 and none as 3.
    The pairs of a union are added up likewise.

    With denoising that holds for images with equally many boxes: in a batch, the one with fewer has padding queries,
    which are to be called background, and alone it has none.
    """
    _, expected = losses_and_gradients(slice(0, 2), **WORK[task].keywords)
    check_gradients([result[task][1] for result in left], expected)


def check_gradients(actual: list[dict[str, torch.Tensor]], expected: dict[str, torch.Tensor]) -> None:
    first, second = actual
    assert first.keys() == second.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - gradient).abs().max() <= 1e-6 * gradient.abs().max() + 1e-12, name


@pytest.mark.parametrize('name', list(COUNTS))
def test_every_loss_is_divided_by_the_mean_number_of_boxes(name: str, left: list[dict[str, Any]]) -> None:
    """Those of denoising too, each process keeping its own number of groups.

    Alone, an image's losses are divided by its own boxes, at least 1; the gradients are the processes' mean.
    """
    counts = COUNTS[name]
    alone = [losses_and_gradients(slice(rank, rank + 1), counts, NARROW) for rank in range(PROCESSES)]
    weights = [max(count, 1) / (sum(counts) / PROCESSES) for count in counts]
    actual = [result[f'noisy, {name}'] for result in left]
    for (losses, _), (expected, _), weight in zip(actual, alone, weights):
        assert losses.keys() == expected.keys() and 'dn_loss_cls' in losses
        for key, loss in losses.items():
            assert loss == about(weight * expected[key], 'doubles'), key
    mean = {key: sum(w * grads[key] for w, (_, grads) in zip(weights, alone)) / PROCESSES for key in alone[0][1]}
    check_gradients([gradients for _, gradients in actual], mean)
