# Data of the larger scales, from the hub: the mixtures that the authors of Tulu 3 published, and the public tests.
PAIRS := published
EXAMS := gsm8k math500 ifeval
EVAL_SAMPLES := 1
RATERS := --raters correct,instructions,ended,format
DECONTAMINATE_FLAGS ?=
BASE_EVAL_FLAGS ?= --chat-template scripts/recipes/tulu.jinja
EVAL_FLAGS ?= --temperature 0 --max-new-tokens 2048
SFT_MIX ?= allenai/tulu-3-sft-mixture
PAIR_MIX ?= allenai/llama-3.1-tulu-3-$(SCALE)-preference-mixture
RLVR_MIX ?= allenai/RLVR-GSM-MATH-IF-Mixed-Constraints

HUB = $(RUNS)/$(SCALE)/tulu3/data
DATA_FILES = $(foreach f,sft pairs rlvr gsm8k math500 ifeval heldout,$(HUB)/$(f).jsonl)
$(DATA_FILES): $(RUNS)/$(SCALE)/tulu3/settings
$(HUB)/sft.jsonl:
	pt-curate convert --dataset $(SFT_MIX) --split train --on-error skip --rejects $@.rejects -o $@
$(HUB)/pairs.jsonl:
	pt-curate convert --dataset $(PAIR_MIX) --split train --on-error skip --rejects $@.rejects -o $@
$(HUB)/rlvr.jsonl:
	pt-curate convert --dataset $(RLVR_MIX) --split train --on-error skip --rejects $@.rejects -o $@
$(HUB)/gsm8k.jsonl:
	pt-curate convert --dataset openai/gsm8k:main --split test --source gsm8k --domain math -o $@
$(HUB)/math500.jsonl:
	pt-curate convert --dataset HuggingFaceH4/MATH-500 --split test --source math500 --domain math -o $@
$(HUB)/ifeval.jsonl:
	pt-curate convert --dataset google/IFEval --split train --source ifeval --domain constraints -o $@
$(HUB)/heldout.jsonl: $(foreach exam,$(EXAMS),$(HUB)/$(exam).jsonl)
	pt-curate mix $(filter %.jsonl,$^) --seed $(SEED) -o $@
