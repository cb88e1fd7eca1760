"""Messages of the library in the words of the command line."""

from __future__ import annotations

import re

# Arguments as messages of the library write them -> options.
ARGUMENTS = {
    r"\bunknown='ignore'": "--unknown ignore",
    r"\bextra='ignore'": "--extra ignore",
    r"\blearn with missing='mean'": "pass --impute mean",
    r"\bstandardise=False": "--no-standardise",
    r"\btask='values'": "--model linear",
    r"\bquote=''": "--quote ''",
    r"\b(delimiter|decimal)=('[^']')": r"--\1 \2",
    r"\bresume=True": "--resume",
    r"\bbatch_size must be a multiple of": "--batch-size must be a multiple of",
    r"\bshards; got": "devices; got",
    r"\bcoordinator must be host:port": "--coordinator must be host:port",
    r"\bprocess_id must be in": "--process-id must be in",
    r"\bcoordinator='host:port', processes and process_id": "--coordinator host:port, --processes and --process-id",
    r"\bheartbeat_seconds must be positive": "--heartbeat-seconds must be positive",
    r", or raise max_levels\b": "",
    r"\bby data\.csv, and arrays, images and libsvm files by data\.open_rows": "with --csv",
}


def in_options(message: str) -> str:
    """What the library says of its arguments, said of the options of the command line."""
    for argument, option in ARGUMENTS.items():
        message = re.sub(argument, option, message)
    return message
