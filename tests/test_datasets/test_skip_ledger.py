"""The count that processes keep together."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

import mmdet_iouquery  # noqa: F401  before anything of mmdet, in spawned workers too
from mmdet_iouquery.datasets import skip_ledger
from mmdet_iouquery.datasets.skip_ledger import SkipLedger


class Skipping(Dataset):
    """Counts one of six names for each item, and says whether that was new."""

    def __init__(self) -> None:
        self.ledger = SkipLedger()

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> bool:
        return self.ledger.add(f'{index % 6}.jpg')


@pytest.mark.parametrize(('context', 'workers'), [('fork', 3), ('spawn', 1)])
def test_what_workers_count_the_main_process_reads(context: str, workers: int) -> None:
    items = Skipping()
    items.ledger.add('of the main process.jpg')
    new = [bool(item) for item in DataLoader(items, None, num_workers=workers, multiprocessing_context=context)]
    assert len(new) == 24 and items.ledger.total == 25 and items.ledger.files == 7
    assert sum(new) == 6 or (workers > 1 and sum(new) >= 6)  # two that meet a file at the same instant may both name it


def test_names_that_fall_on_one_place_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skip_ledger, '_FILES', 3)
    ledger = SkipLedger()
    assert [ledger.add(name) for name in 'abcabc'] == [True, True, True, False, False, False]
    assert [ledger.add(name) for name in 'ad'] == [False, False]  # full: counted, not named
    assert (ledger.total, ledger.files) == (8, 3)
