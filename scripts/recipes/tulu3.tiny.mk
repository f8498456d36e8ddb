# The built-in tiny world: real learning in minutes on two CPU cores. Settings were chosen on its development prompts.
EXAMS := heldout dev
DECONTAMINATE_FLAGS ?= --require-clean
EVAL_SAMPLES := 4
POOL_SFT := 2
POOL_BASE := 2
RATERS := --raters correct,instructions,ended,format
DATA_FLAGS ?=
MAX := --max-length 64
NEW := --max-new-tokens 40

BASE_FLAGS ?= --lr 2e-3 --batch-size 64 --micro-batch-size 32 --adam-beta2 0.98 --warmup 50 --min-lr-ratio 0.05 --epochs 1 --save-every 250 $(MAX)
SFT_FLAGS ?= --lr 1e-3 --batch-size 64 --micro-batch-size 32 --warmup 0.03 --epochs 2 $(MAX)
SFT_SAVE_FLAGS ?= --save-every 20
POOL_FLAGS ?= $(NEW)
DPO_FLAGS ?= --lr 1e-4 --batch-size 32 --beta 5 --warmup 0.1 --epochs 1 $(MAX)
RLVR_FLAGS ?= --lr 7e-4 --schedule linear --warmup 3 --max-steps 80 --group-size 8 --batch-size 512 --micro-batch-size 128 --adam-beta2 0.99 --clip-high 0.28 --save-every 10 $(NEW)
EVAL_FLAGS ?= $(NEW)

TINY = $(RUNS)/tiny/tulu3
WORLD = $(foreach f,corpus.jsonl sft.jsonl prompts.jsonl rlvr.jsonl dev.jsonl heldout.jsonl blank/config.json,$(TINY)/data/$(f))
$(WORLD) &: scripts/tiny/world.py scripts/tiny/tasks.py scripts/tiny/blueprint.py $(TINY)/settings
	python scripts/tiny/world.py --seed $(SEED) $(DATA_FLAGS) -o $(TINY)/data

# The later stages only sharpen what a base model knows already.
LEARNED := $(TINY)/learned
$(LEARNED): $(TINY)/eval/base.json
	python scripts/tiny/learned.py $< arithmetic=0.2 strings=0.2 constraints=0.2
	@touch $@
