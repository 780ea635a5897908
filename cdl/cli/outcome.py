"""What `cdl run` prints at the end of a run that did not succeed: why, and what to do."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cdl.inventory.status import first_worker, reason_in

CLUSTER = ".snakemake/slurm_logs"  # logs of the cluster's own
SHOWN = 3  # failed jobs whose errors are repeated
KEPT = "the results of finished jobs are kept"


def closing(events: Iterable[Mapping[str, Any]], interrupted: bool, run: str, status: str) -> str:
    """Return the last lines of a run that did not succeed; empty if no job was started.

    Args:
        events: see `cdl.cli.events`.
        interrupted: whether it was stopped by Ctrl-C or a signal.
        run: command that was started.
        status: command that shows the progress.
    """
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_kind.setdefault(event["kind"], []).append(event)
    go_on = f"Resume:        {run}\nShow progress: {status}"
    if "locked" in by_kind:
        return _locked(run)
    if interrupted:
        return f"interrupted; {KEPT}\n{go_on}"
    if failed := by_kind.get("failed", []):
        lines = [line for event in failed[:SHOWN] for line in _failure(event)]
        if len(failed) > SHOWN:
            lines.append(f"and {len(failed) - SHOWN} more failed jobs, see the command above")
        return "\n".join([f"stopped because a job failed; {KEPT}", go_on, *lines])
    return f"stopped; {KEPT}\n{go_on}" if "started" in by_kind else ""


def _failure(event: Mapping[str, Any]) -> list[str]:
    """Return a failed job with the sentence of its error, which has the remedy, and its log."""
    logs = [Path(log) for log in event["logs"]]
    reasons = [reason for log in logs if (reason := reason_in(log))]
    silent = "ended without an error message; it may have been killed, or a cluster refused it"
    why = reasons[0] if reasons else silent
    others = [] if reasons else [".snakemake/log", *sorted(map(str, Path(CLUSTER).glob("*")))]
    log = ", ".join([*map(str, logs), *others]) or "in .snakemake/log"
    return [f"Failed:        {event['what']}: {why}", f"Log:           {log}"]


def _locked(run: str) -> str:
    """Return who has locked the files of the current folder, and what to do."""
    if owner := first_worker():
        who = f"{owner} and makes the same files; wait for its end, or start in another folder"
        return f"cdl: {who}\nThen:          {run}"
    return (
        "cdl: the folder is locked, but no run is at work in it on this machine: it was killed\n"
        "If no machine runs it any more, nor a cluster its jobs (docs/cluster.md), "
        f"remove the lock: {run} --unlock\nThen:          {run}"
    )
