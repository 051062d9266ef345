"""Sums of table rows are products with the sparse matrix."""

from __future__ import annotations

import pytest
import torch
from scipy import sparse

from mmdet_iouquery.cpu.winograd import row_sums


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-13), (torch.float32, 1e-4)])
@pytest.mark.parametrize('width', [1, 7, 640])
def test_equals_the_product(width: int, dtype: torch.dtype, tolerance: float) -> None:
    """Of a matrix with empty rows and columns, on a table and on a part of one."""
    dense = torch.randn(23, 31).double() * (torch.rand(23, 31) < 0.2)
    dense[[0, 9, 22]] = 0
    dense[:, 5] = 0
    table = torch.randn(40, width, dtype=dtype)
    sums = row_sums(sparse.csr_matrix(dense.numpy()), dtype)
    for some in (table[:31], table[9:]):
        actual = sums(some)
        assert actual.dtype == dtype and not actual[[0, 9, 22]].any()
        torch.testing.assert_close(actual.double(), dense @ some.double(), rtol=0, atol=tolerance)


def test_rows_without_an_entry_are_not_read() -> None:
    """So what has no part in a sum may be anything."""
    table = torch.tensor([[1.0], [float('nan')], [3.0]])
    sums = row_sums(sparse.csr_matrix([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), torch.float32)
    assert sums(table).tolist() == [[5.0], [0.0]]
