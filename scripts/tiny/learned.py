"""Stop a recipe whose base model has not learned: python scripts/tiny/learned.py EVAL.json DOMAIN=LEAST…"""

import json
import sys
from pathlib import Path


def main():
    path, *floors = sys.argv[1:]
    domains = json.loads(Path(path).read_text())["domains"]
    for floor in floors:
        domain, _, least = floor.partition("=")
        found = domains[domain]["mean"]
        if found < float(least):
            sys.exit(f"the base model has not learned {domain}: pass@1 is {found:.3f}, the recipe needs {least}. "
                     "Train it longer (BASE_FLAGS) or take another SEED; later stages could not make up for it.")


if __name__ == "__main__":
    main()
