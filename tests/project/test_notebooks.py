"""The notebooks run from top to bottom."""

from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    shown = [cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", coalesce_streams=True
    ).execute()
    again = [cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"]
    assert [len(a) for a in again] == [len(a) for a in shown]
