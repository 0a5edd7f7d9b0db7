"""The cheapest one-to-one assignment (Kuhn 1955; shortest augmenting paths as in Jonker and Volgenant 1987)."""

from __future__ import annotations

import numpy as np

from ...core import BadInput


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n, m)`` finite costs: rows and columns ``(min(n, m),)`` of the assignment with the smallest sum, rows
    ascending. Time grows with min(n, m) squared times max(n, m)."""
    cost = np.asarray(cost, np.float64)
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise BadInput(f"an assignment needs a finite (n, m) matrix of costs; got shape {cost.shape}")
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    n, m = cost.shape
    row_price, column_price = np.zeros(n + 1), np.zeros(m + 1)
    taken_by = np.full(m + 1, -1)  # row of each column; the last column is where a new row starts from
    for row in range(n):
        taken_by[m] = row
        column = m
        distance, via, done = np.full(m, np.inf), np.full(m, m), np.zeros(m + 1, bool)
        while taken_by[column] >= 0:
            done[column] = True
            current = taken_by[column]
            open_columns = ~done[:m]
            reduced = cost[current] - row_price[current] - column_price[:m]
            nearer = open_columns & (reduced < distance)
            distance[nearer], via[nearer] = reduced[nearer], column
            column = int(np.where(open_columns, distance, np.inf).argmin())
            step = distance[column]
            row_price[taken_by[done]] += step
            column_price[done] -= step
            distance[open_columns] -= step
        while column != m:
            taken_by[column], column = taken_by[via[column]], via[column]
    columns = np.flatnonzero(taken_by[:m] >= 0)
    rows = taken_by[columns]
    order = np.argsort(rows)
    return rows[order], columns[order]
