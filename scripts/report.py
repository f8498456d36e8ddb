"""The last act of a recipe: every stage on the held-out prompts, as a table on the terminal and as table.json.

    report.py -o table.json --recipe tulu3 --scale tiny --seed 0 \\
        --stage sft runs/sft runs/eval/sft.json --part sft runs/sft.jsonl --win dpo sft runs/win.json
    report.py --show table.json

`--stage NAME MODEL EVAL`: a stage in the order it ran, its model directory and what pt-eval wrote of it. `--part`: a
further output whose time belongs to the stage. `--win NAME OTHER FILE`: pt-eval --against of two stages' samples.
`--kept NAME BEFORE TEACHER…`: how much of what the teachers gained over a stage the stage NAME, made of them all, has.
"""

import argparse
import json
from pathlib import Path

from pt_tools import outdir
from pt_tools.stream import KINDS


def stage_row(name, model, evaluation, parts, wins) -> dict:
    manifest = outdir.read_manifest(model) or {}
    scores = json.loads(Path(evaluation).read_text())
    made = [manifest] + [outdir.read_manifest(part) or {} for part in parts]
    rows = next((m["rows"] for m in made if m.get("rows", {}).get("in")), {})  # a mean of models has seen none itself
    return {"name": name, "model": str(model), "seconds": round(sum(m.get("seconds", 0.0) for m in made), 1),
            "rows": {kind: rows.get(kind, 0) for kind in KINDS},
            "domains": {d: bounds(v, "n") for d, v in scores["domains"].items()},
            "mean": bounds(scores["mean"]),
            "extra": {**scores.get("extra", {}), **{f"win_rate_over_{other}": won(file) for other, file in wins}}}


def won(file) -> dict:
    return json.loads(Path(file).read_text())["extra"]["against"]


def kept(stages: dict, name, before, *teachers) -> dict:
    """For every domain and for their mean: the scores before, of the best teacher and of stage `name`, and the share
    (after - before) / (best - before), which is null where no teacher gained. The mean's best is every domain's best."""
    scores = {stage: {d: v["mean"] for d, v in stages[stage]["domains"].items()} for stage in (name, before, *teachers)}
    tops = {d: max(teachers, key=lambda teacher: scores[teacher][d]) for d in scores[before]}
    best = {d: scores[top][d] for d, top in tops.items()}
    rows = {d: {"best_teacher": tops[d]} | share(scores[before][d], best[d], scores[name][d]) for d in tops}
    mean = share(stages[before]["mean"]["mean"], sum(best.values()) / len(best), stages[name]["mean"]["mean"])
    return {"over": before, "domains": rows, "mean": mean}


def share(before: float, best: float, after: float) -> dict:
    kept = (after - before) / (best - before) if best > before else None
    return {"before": before, "best": best, "after": after, "kept": kept}


def bounds(score: dict, *more: str) -> dict:
    return {key: score[key] for key in (*more, "mean", "low", "high")}


def show(table: dict) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    domains = list(dict.fromkeys(d for stage in table["stages"] for d in stage["domains"]))
    view = Table(title=f"{table['recipe']}, scale {table['scale']}, seed {table['seed']}: held-out pass@1, 95 % bounds")
    view.add_column("stage")
    for title in (*map(escape, domains), "mean"):
        view.add_column(title, justify="right", no_wrap=True)
    for title in ("seconds", "rows in", "out", "dropped", "truncated", "masked", "errored"):
        view.add_column(title, justify="right")
    for stage in table["stages"]:
        scores = [stage["domains"].get(d) for d in domains] + [stage["mean"]]
        cells = [f"{s['mean']:.3f} [{s['low']:.3f} {s['high']:.3f}]" if s else "" for s in scores]
        view.add_row(stage["name"], *cells, f"{stage['seconds']:.0f}", *(str(stage["rows"][k]) for k in KINDS))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(view)
    for stage in table["stages"]:
        for name, value in stage["extra"].items():
            if name.startswith("win_rate_over_"):
                mean = value["mean"]
                console.print(f"{stage['name']}: {name.replace('_', ' ')} {mean['mean']:.3f} [{mean['low']:.3f} {mean['high']:.3f}]", highlight=False)
        if "kept" in stage["extra"]:
            console.print(kept_view(stage["name"], stage["extra"]["kept"]))


def kept_view(name: str, kept: dict):
    from rich.markup import escape
    from rich.table import Table

    view = Table(title="what is kept of the teachers' gains")
    view.add_column("domain")
    for title in (kept["over"], "best teacher", name, "share kept"):
        view.add_column(title, justify="right")
    for domain, row in (*kept["domains"].items(), ("mean", kept["mean"])):
        shown = "no gain" if row["kept"] is None else f"{row['kept']:.0%}"
        best = f"{row.get('best_teacher', 'of each domain')} {row['best']:.3f}"
        view.add_row(escape(domain), f"{row['before']:.3f}", best, f"{row['after']:.3f}", shown)
    return view


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--show", "--recipe", "--scale", "--seed", "-o"):
        parser.add_argument(flag)
    parser.add_argument("--stage", nargs=3, action="append", default=[], metavar=("NAME", "MODEL", "EVAL"))
    parser.add_argument("--part", nargs=2, action="append", default=[], metavar=("NAME", "OUTPUT"))
    parser.add_argument("--win", nargs=3, action="append", default=[], metavar=("NAME", "OTHER", "FILE"))
    parser.add_argument("--kept", nargs="+", action="append", default=[], metavar="NAME")
    args = parser.parse_args()
    if args.show:
        return show(json.loads(Path(args.show).read_text()))
    stages = [stage_row(name, model, evaluation, [p for n, p in args.part if n == name],
                        [(o, f) for n, o, f in args.win if n == name]) for name, model, evaluation in args.stage]
    named = {stage["name"]: stage for stage in stages}
    for name, *others in args.kept:
        named[name]["extra"]["kept"] = kept(named, name, *others)
    table = {"recipe": args.recipe, "scale": args.scale, "seed": int(args.seed), "stages": stages}
    outdir.write_atomic(args.o, json.dumps(table, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
