# Real data, a small model from scratch (or MODEL=), a few steps a stage: it proves formats, masks, truncation,
# verifiers and hand-over, not learning.
DATA ?= ../shared/data
PAIRS := published
EXAMS := gsm8k-test ifeval-test
EVAL_SAMPLES := 1
RATERS := --raters correct,instructions,ended,format
DECONTAMINATE_FLAGS ?=
DATA_FLAGS ?= --vocabulary 2048 --hidden 128 --layers 2 --max-length 1024

BASE_FLAGS ?= --max-steps 40 --batch-size 16 --micro-batch-size 8 --lr 2e-3 --max-length 512
SFT_FLAGS ?= --max-steps 8 --batch-size 16 --micro-batch-size 8 --lr 1e-3 --max-length 512 --packing
SFT_SAVE_FLAGS ?= --save-every 2
DPO_FLAGS ?= --max-steps 6 --batch-size 8 --lr 1e-4 --beta 5 --warmup 0.1 --max-length 1024
RLVR_FLAGS ?= --max-steps 4 --batch-size 128 --group-size 8 --lr 1e-4 --max-new-tokens 48
EVAL_FLAGS ?= --max-new-tokens 48

REAL = $(RUNS)/real/tulu3/data
DATA_FILES = $(foreach f,dolly demo corpus sft pairs gsm8k-train gsm8k-test ifeval ifeval-train ifeval-test rlvr heldout,$(REAL)/$(f).jsonl)
# Rows that a small context cannot hold are counted, not fatal.
$(REAL)/dolly.jsonl: $(DATA)/dolly/dolly_3k.json $(RUNS)/real/tulu3/settings
	pt-curate convert $< --source dolly --domain chat -o $@
$(REAL)/demo.jsonl: $(DATA)/sft/alpaca_en_demo.json $(RUNS)/real/tulu3/settings
	pt-curate convert $< --source alpaca-demo --domain chat -o $@
$(REAL)/corpus.jsonl: $(REAL)/dolly.jsonl $(RUNS)/real/tulu3/settings
	pt-curate mix $< --seed $(SEED) -o $@
$(REAL)/sft.jsonl: $(REAL)/dolly.jsonl $(REAL)/demo.jsonl $(RUNS)/real/tulu3/settings
	pt-curate mix $(filter %.jsonl,$^) --seed $(SEED) -o $@
$(REAL)/pairs.jsonl: $(DATA)/preference/dpo_en_demo.json $(RUNS)/real/tulu3/settings
	pt-curate convert $< --source dpo-demo -o $@
$(REAL)/gsm8k-train.jsonl: $(DATA)/gsm8k/train.jsonl $(RUNS)/real/tulu3/settings
	pt-curate convert $< --source gsm8k --domain math -o $@
$(REAL)/gsm8k-test.jsonl: $(DATA)/gsm8k/test.jsonl $(RUNS)/real/tulu3/settings
	pt-curate convert $< --source gsm8k-test --domain math -o $@
$(REAL)/ifeval.jsonl: $(DATA)/ifeval/input_data.jsonl $(RUNS)/real/tulu3/settings
	pt-curate convert $< --source ifeval --domain constraints -o $@
# Half of the IFEval prompts are trained on, half are examined; the split is by prompt.
$(REAL)/ifeval-train.jsonl $(REAL)/ifeval-test.jsonl &: $(REAL)/ifeval.jsonl $(RUNS)/real/tulu3/settings
	pt-curate split $< --part train=0.5 --part test=0.5 --seed $(SEED) -o '$(REAL)/ifeval-{part}.jsonl'
$(REAL)/rlvr.jsonl: $(REAL)/gsm8k-train.jsonl $(REAL)/ifeval-train.jsonl $(RUNS)/real/tulu3/settings
	pt-curate mix $(filter %.jsonl,$^) --take $<=100 --seed $(SEED) -o $@
$(REAL)/heldout.jsonl: $(REAL)/gsm8k-test.jsonl $(REAL)/ifeval-test.jsonl $(RUNS)/real/tulu3/settings
	pt-curate mix $(filter %.jsonl,$^) --take $(REAL)/gsm8k-test.jsonl=40 --take $(REAL)/ifeval-test.jsonl=40 --seed $(SEED) -o $@
$(REAL)/blank/config.json: $(REAL)/dolly.jsonl scripts/real/blank.py $(RUNS)/real/tulu3/settings
	python scripts/real/blank.py $< -o $(@D) $(DATA_FLAGS)
