"""Reading npz files that may be damaged or somebody else's; nothing is unpickled."""

from os import PathLike

import numpy as np


def read(path: str | PathLike[str], writer: str) -> dict[str, np.ndarray]:
    """The arrays of a file.

    Args:
        path: the file.
        writer: the function that writes such files, for the error message.

    Raises:
        ValueError: the file is damaged, or no npz file.
        FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it holds one array")
            with loaded as archive:
                return dict(archive)
        except Exception as error:  # zipfile, zlib and NumPy's parsers raise all kinds
            raise ValueError(
                f"{path} is damaged, or no file that {writer} wrote: {error}"
            ) from error
