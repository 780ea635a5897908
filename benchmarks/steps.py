"""Time every stage of one case, beside the released recipe's structure, in one run.

Both recipes take turns for `--rounds` rounds, so that ratios hold on a busy machine too. Our steps
are the product's own loop, views included; the recipe's get their views ready made, because its
workers make them beside the step: its end-to-end rate is the smaller one of step and input.

Columns:
    ms/step: median of the rounds (and their range), per batch; an evaluation's is `--test-batch`.
    img/s: images of a batch by that median.
    TFLOP/s: operations that the stage carries out (`cdl/models/operations.py`), by that median.
    peak MiB: see `meter.Measured`.
    ratio: img/s over the recipe's for the same stage. Its queries and targets are part of its
        student step, so the caches have none.
    limit: the ratio that counting allows, the recipe's operations over ours: what is left to win
        without cheaper operations.
    of limit: ratio over limit.

The micro pair on a CPU, and the published pair on a GPU:

    python benchmarks/steps.py
    python benchmarks/steps.py --teacher vit_base_patch16_224 --student vit_small_patch16_224 \
        --size 224 --precision bf16 --capture --steps 50
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from bench import Bench
from case import arguments, case_of, command
from meter import Measured, ceiling, hardware
from released_recipe import PillowViews, Recipe, Unfrozen, batches

from cdl.data.modalities import views_of
from cdl.runtime.artifacts import write_json
from cdl.runtime.errors import CdlError

# the released code on one H100 80GB: ViT-B teaching ViT-S, 224 px, batch 64; ms per step
RELEASED = {"teacher": 204.0, "student": 172.0}


def recipe_of(bench: Bench) -> Recipe:
    """Return the recipe with learners that start as the bench's do."""
    learners = {
        role: bench.learner(role, bench.backbone(role, Unfrozen)) for role in ("student", "teacher")
    }
    if bench.runs["student"].distils.maps_prompts:
        learners["student"].distiller.read_teacher(learners["teacher"].prompts.state_dict())
    queried = learners[bench.specs["teacher"].query].backbone
    return Recipe(
        **learners,
        foreign_query=queried if bench.runs["teacher"].prompts.needs_query else None,
        task=bench.task,
        classes=bench.classes,
        lr=bench.specs["student"].training.lr,
    )


def stages(bench: Bench, workers: int) -> dict[tuple[str, str], Callable[[], Measured]]:
    """Return what is timed, by stage and recipe, in the order of a task's life."""
    recipe, student = recipe_of(bench), bench.learners["student"]

    def steps(step: Callable) -> Measured:
        meter = bench.meter()
        for batch in meter.watch(bench.ready):
            step(batch)
        return meter.result

    def pillow() -> Measured:
        views = views_of(bench.specs["student"].view)
        data = PillowViews(bench.pixels, bench.batches.indices, bench.batches.labels, views)
        meter = bench.meter()
        for _ in meter.watch(batches(data, bench.case.batch, workers, bench.compute.device)):
            pass
        return meter.result

    return {
        ("teacher", "recipe"): lambda: steps(recipe.teacher_step),
        ("teacher", "online"): lambda: bench.learn("teacher", False),
        ("teacher", "cached"): lambda: bench.learn("teacher", True),
        ("queries", "cached"): bench.cache_queries,
        ("targets", "cached"): bench.cache_targets,
        ("student", "recipe"): lambda: steps(recipe.student_step),
        ("student", "online"): lambda: bench.learn("student", False),
        ("student", "cached"): lambda: bench.learn("student", True),
        ("evaluation", "recipe"): lambda: bench.evaluate(recipe.student, False),
        ("evaluation", "cached"): lambda: bench.evaluate(student, True),
        ("input", "recipe"): pillow,
        ("input", "cached"): bench.views,
    }


def operations(bench: Bench) -> dict[tuple[str, str], float]:
    """Return the operations per image of every stage that runs a ViT."""
    run, queried = bench.runs["student"], bench.specs["teacher"].query
    plain = {role: bench.plain_operations(role) for role in ("teacher", "student")}
    t_forward, t_backward = bench.operations("teacher")
    s_forward, s_backward = bench.operations("student")
    t_query, s_query = (plain[q] * run.prompts.needs_query for q in (queried, "student"))
    guide = t_forward if run.teacher else 0.0
    queries = s_query + t_query * (run.teacher is not None and queried != "student")
    return {
        ("teacher", "cached"): t_forward + t_backward,
        ("teacher", "online"): t_query + t_forward + t_backward,
        ("student", "cached"): s_forward + s_backward + guide * run.reads_blocks,
        ("student", "online"): queries + guide + s_forward + s_backward,
        ("queries", "cached"): plain["student"],
        ("targets", "cached"): t_forward,
        ("evaluation", "cached"): s_forward,
        ("teacher", "recipe"): t_query + sum(bench.operations("teacher", weights=True)),
        ("student", "recipe"): t_query
        + s_query
        + guide
        + sum(bench.operations("student", weights=True)),
        ("evaluation", "recipe"): s_query + s_forward,
    }


def measure(bench: Bench, workers: int, rounds: int) -> pd.DataFrame:
    """Return one row per stage and recipe, in the order of a task's life."""
    todo = stages(bench, workers)
    found: dict[tuple[str, str], list[Measured]] = {key: [] for key in todo}
    for _ in range(rounds):
        for key, stage in todo.items():
            found[key].append(stage())
    work, rates = operations(bench), {}
    rows: list[dict[str, Any]] = []
    for (stage, recipe), results in found.items():
        times = [1000 * r.seconds / r.steps for r in results]
        time, images = statistics.median(times), results[0].images / results[0].steps
        rate = rates[stage, recipe] = 1000 * images / time
        flops, basis = work.get((stage, recipe)), rates.get((stage, "recipe"))
        theirs, ratio = work.get((stage, "recipe")), None if basis is None else rate / basis
        limit = None if flops is None or theirs is None else theirs / flops
        rows.append(
            {
                "stage": stage,
                "recipe": recipe if recipe == "recipe" else f"ours, {recipe}",
                "ms/step": time,
                "range": f"{min(times):.2f}-{max(times):.2f}",
                "img/s": rate,
                "TFLOP/s": None if flops is None else flops * rate / 1e12,
                "peak MiB": max(r.peak for r in results) / 2**20,
                "ratio": ratio,
                "limit": limit,
                "of limit": None if limit is None else ratio / limit,
            }
        )
    return pd.DataFrame(rows)


def verdict(frame: pd.DataFrame, case: Any, device: str) -> str:
    """Say whether the recipe is as slow as the released code, where that was measured."""
    published = ("vit_base_patch16_224", "vit_small_patch16_224", 224, 64)
    if "H100" not in device or (case.teacher, case.student, case.size, case.batch) != published:
        return "The released code was timed on an H100 only: nothing to hold the recipe against."
    recipe = frame[frame["recipe"] == "recipe"].set_index("stage")["ms/step"]
    return "\n".join(
        f"{stage} step of the recipe: {recipe[stage]:.0f} ms, of the released code {ms:.0f} ms: "
        f"{'within' if abs(recipe[stage] / ms - 1) <= 0.2 else 'NOT within'} 20 %"
        for stage, ms in RELEASED.items()
    )


def main(given: list[str] | None = None) -> None:
    """Measure, print the table and what it was measured on, and write JSON if asked."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns that both recipes take")
    parser.add_argument("--workers", type=int, default=4, help="of the recipe's input pipeline")
    parser.add_argument("--output", help="JSON with the same numbers, for grid_cost.py")
    args = parser.parse_args(given)
    case = case_of(args)
    if case.clock == "cpu" and args.workers:
        raise CdlError("--clock: cpu sees this process only; give --workers 0 with it")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(case, Path(folder))
        frame = measure(bench, args.workers, args.rounds)
        device, dtype = bench.compute.device, bench.compute.dtype
        peaks = {
            str(d).removeprefix("torch."): ceiling(device, d, case.clock)
            for d in dict.fromkeys([torch.float32, dtype])
        }
        where = hardware(bench.compute, case.threads)
    formats = ("", "", ".2f", "", ",.0f", ".3f", ".1f", ".2f", ".2f", ".2f")
    print(frame.to_markdown(index=False, floatfmt=formats).replace(" nan ", "   - "))
    print(
        f"\n{where}; {args.rounds} rounds of {case.steps} steps; {args.workers} workers; "
        f"{case.clock} clock"
    )
    shown = ", ".join(f"{name} {value / 1e12:.3f} TFLOP/s" for name, value in peaks.items())
    print(f"Large matrix product on this device: {shown}")
    print(verdict(frame, case, where))
    if args.output:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        known = {"case": vars(case), "hardware": where, "ceiling": peaks, "rounds": args.rounds}
        write_json(args.output, {**known, "workers": args.workers, "stages": rows})


if __name__ == "__main__":
    command(main)
