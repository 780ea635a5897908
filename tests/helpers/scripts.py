"""The scripts of the workflow, run in this process with the files of cdl's list of jobs."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from cdl import layout

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
RESOURCES = {"device": "cpu", "capture": 0, "save_minutes": 1, "limit_gb": 1, "gpu": 0}
LEARN = {"queries", "test_queries", "teacher_targets", "train", "distil", "align"}
LEARN |= {"test_features", "evaluate", "prompts"}
SCRIPT_OF = {  # rules that share the script of another
    "evaluate_trial": "evaluate",
    "teacher_targets_seen": "teacher_targets",
    "teacher_targets_test": "teacher_targets",
}
BENCHMARK = "s\th:m:s\tmax_rss\tmean_load\tcpu_time\n1.5\t0:00:01\t1\t1\t1\n"


class Named(dict):
    """Named values of a script, also available as attributes."""

    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)


class Log(list):
    """Log files of a script, of which one may have a name."""

    def __init__(self, paths, measured):
        super().__init__(paths)
        self.measured = measured


def perform(job, inputs=None):
    """Run the script of a job in the current folder, and write its benchmark as Snakemake does."""
    script = SCRIPT_OF.get(job.rule, job.rule)
    for path in job.paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    given = SimpleNamespace(
        input=Named(job.inputs if inputs is None else inputs),
        output=Named(job.outputs),
        params=Named(job.params, states=layout.STATES),
        wildcards=Named(job.key),
        resources=SimpleNamespace(**(RESOURCES if script in LEARN else {})),
        log=Log([job.log], job.measurements),
        threads=1,
        config={},
    )
    runpy.run_path(str(SCRIPTS / f"{script}.py"), {"snakemake": given})
    if job.benchmark:
        Path(job.benchmark).write_text(BENCHMARK)
