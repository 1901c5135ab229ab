"""The map of chapter 4 that readers change: what it says before anyone does. tests/test_browser.py changes it."""

from __future__ import annotations

import pytest
import torch
from bs4 import BeautifulSoup

from kdas_book.figures import ch04_attention_maps as ch04
from kdas_core.attention import attention_weights, self_attention


@pytest.fixture(scope="module")
def logits():
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).round(decimals=1)


@pytest.fixture(scope="module")
def page(logits):
    return ch04.editable_map(logits, row=3, column=2).data


def values(table) -> torch.Tensor:
    rows = table.tbody.select("tr")
    return torch.tensor([[float(td["data-value"]) for td in row.select("td")] for row in rows])


def test_without_a_script_the_tables_hold_the_numbers_of_the_package(page, logits):
    tables = BeautifulSoup(page, "html.parser").select("table")
    batch = logits[None, None]
    scores = logits @ logits.T / logits.shape[1] ** 0.5
    expected = [logits, scores, attention_weights(batch)[0], self_attention(batch)[0]]
    for table, numbers in zip(tables, expected, strict=True):
        torch.testing.assert_close(values(table), numbers, atol=1e-4, rtol=0)
        shown = [[float(td.text) for td in row.select("td")] for row in table.tbody.select("tr")]
        torch.testing.assert_close(torch.tensor(shown), numbers, atol=0.051, rtol=0)


def test_only_the_map_itself_is_a_grid_and_every_table_and_button_has_a_name(page):
    soup = BeautifulSoup(page, "html.parser")
    roles = [table.get("role") for table in soup.select("table")]
    assert roles == ["grid", None, None, None]
    assert all(table["aria-label"] and table.caption.text for table in soup.select("table"))
    assert all(button.text or button["aria-label"] for button in soup.select("button"))
    assert soup.select_one("[role=status]") is not None


def test_it_is_small_fetches_nothing_and_has_no_handler_in_an_attribute(page):
    script = page.partition("<script>")[2]
    assert len(script.encode()) < 20_000 and len(page.encode()) < 40_000
    assert "http" not in page and "src=" not in page
    tags = BeautifulSoup(page, "html.parser").find_all(True)
    assert [tag for tag in tags if any(name.startswith("on") for name in tag.attrs)] == []
