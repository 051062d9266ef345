"""Several processes meet a step that is not finite: they decide alike, and the one that met it names it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import NARROW, random_batch, small_detector
from mmengine.optim import OptimWrapper
from started_run import in_processes
from torch.nn.parallel import DistributedDataParallel

PROCESSES = 2
BROKEN = 'bbox_head.decoder.layers.1.linear2'


def run_rank(rank: int, folder: str) -> None:
    """Two steps, the first of which is broken in the second process; skipped, then stopped at."""
    torch.set_num_threads(1)
    from mmdet.utils import register_all_modules

    from mmdet_iouquery.engine.hooks import NonFiniteHook
    from mmdet_iouquery.errors import NonFiniteError

    register_all_modules(init_default_scope=True)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)
    model = small_detector(**NARROW).train()
    model.init_weights()
    wrapped = DistributedDataParallel(model, find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    warnings: list[str] = []
    runner = SimpleNamespace(
        model=wrapped,
        optim_wrapper=OptimWrapper(optimizer),
        iter=0,
        logger=SimpleNamespace(warning=warnings.append),
        message_hub=SimpleNamespace(update_scalar=lambda *_: None),
    )
    broken = [rank == 1]

    def breaks(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        return output * torch.nan if broken[0] else None

    model.get_submodule(BROKEN).register_forward_hook(breaks)
    images, samples = random_batch([2, 1], 64, 64)
    weights, errors = [], []
    for action in ('skip', 'stop'):
        hook = NonFiniteHook(action=action)
        hook.before_train(runner)
        for step in range(2):
            broken[0] = rank == 1 and step == (0 if action == 'skip' else 1)
            optimizer.zero_grad()
            sum(wrapped(images, samples, mode='loss').values()).backward()
            try:
                optimizer.step()
            except NonFiniteError as error:
                errors.append(str(error))
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).double().sum().item())
        hook.after_train(runner)
    torch.save({'weights': weights, 'warnings': warnings, 'errors': errors}, f'{folder}/rank_{rank}.pt')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def left(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp('two processes')
    in_processes(run_rank, str(folder), count=PROCESSES)
    return [torch.load(folder / f'rank_{rank}.pt') for rank in range(PROCESSES)]


def test_both_leave_the_step_out_and_both_stop(left: list[dict[str, Any]]) -> None:
    first, second = left
    assert first['weights'] == second['weights']
    skipped, trained, again, stopped = first['weights']
    assert skipped != trained != again == stopped
    assert all(len(result['warnings']) == 1 and len(result['errors']) == 1 for result in left)


def test_the_process_that_met_it_names_it(left: list[dict[str, Any]]) -> None:
    for text, other in zip(
        (left[1]['warnings'][0], left[1]['errors'][0]), (left[0]['warnings'][0], left[0]['errors'][0])
    ):
        assert f'It begins in {BROKEN} (Linear)' in text and 'Images: images/one.jpg' in text
        assert 'It did not begin in this process' in other
