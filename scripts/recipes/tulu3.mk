# make tulu3                   Tulu 3: curated prompts, SFT, preference pairs, length-normalised DPO, RLVR
# make tulu3 SCALE=8b          the same with the published hyper-parameters and data sets (make -n prints the script)
# make tulu3-real DATA=DIR     the same over real data with a small model, a few steps a stage
# make tulu3 SFT_AVERAGE=3     DPO starts from the mean of the last 3 SFT checkpoints (the finished model is one)
#
# Override on the command line: SEED=1 MODEL=DIR-or-hub-id DATA=DIR RUNS=DIR, or any *_FLAGS below.
# RUN= goes in front of every stage that computes (a job submitter, say).

RUNS ?= runs
RUN ?=
MODEL ?=
include scripts/recipes/tulu3.$(SCALE).mk

R := $(RUNS)/$(SCALE)/tulu3
D := $(R)/data
C := $(R)/clean
E := $(R)/eval
BASE := $(or $(MODEL),$(R)/base)
# A model that was not made here has no manifest: its files are watched.
FOREIGN := $(if $(MODEL),$(wildcard $(MODEL)/*.safetensors $(MODEL)/*.json))
BASE_MANIFEST := $(if $(MODEL),$(or $(wildcard $(MODEL)/MANIFEST.json),$(FOREIGN)),$(R)/base/MANIFEST.json)

# What pt-tools writes is whole or not there: make must not remove it when it is interrupted.
EXAMINED := samples.jsonl scored.jsonl rated.jsonl json
.PRECIOUS: $(foreach stage,base sft dpo rlvr,$(R)/$(stage)/MANIFEST.json $(EXAMINED:%=$(E)/$(stage).%)) \
  $(E)/win.json $(R)/pool.sft.jsonl $(R)/pool.jsonl $(R)/rated.jsonl $(C)/pairs.jsonl $(C)/%.jsonl $(DATA_FILES)

.PHONY: tulu3 tulu3-real FORCE
tulu3: $(R)/table.json
	@python scripts/report.py --show $<
tulu3-real:
	@$(MAKE) --no-print-directory tulu3 SCALE=real

# A change of a setting rebuilds what it touches: every stage compares its own run key and is done at once if equal.
SETTINGS = $(SEED) $(MODEL) $(DATA) $(DATA_FLAGS) $(BASE_FLAGS) $(SFT_FLAGS) $(POOL_FLAGS) $(DPO_FLAGS) $(RLVR_FLAGS) \
  $(SFT_MIX) $(PAIR_MIX) $(RLVR_MIX) $(EVAL_FLAGS) $(EVAL_SAMPLES) $(BASE_EVAL_FLAGS) $(POOL_SFT) $(POOL_BASE) $(RATERS) $(PAIR_FLAGS) $(DECONTAMINATE_FLAGS)
%settings: FORCE | $(INSTALLED)
	@mkdir -p $(@D)
	@echo '$(SETTINGS)' | cmp -s - $@ || echo '$(SETTINGS)' >$@

# Prompts, curated: nothing that is trained on may be among what is examined.
$(C)/%.jsonl: $(D)/%.jsonl $(D)/heldout.jsonl $(R)/settings
	pt-curate decontaminate $< $(foreach f,$(EXAMS),--against $(D)/$(f).jsonl) $(DECONTAMINATE_FLAGS) -o $@

# Base model, unless MODEL= names one.
ifndef MODEL
$(R)/base/MANIFEST.json: $(C)/corpus.jsonl $(D)/blank/config.json $(R)/settings
	$(RUN) pt-sft $< -m $(D)/blank --from-scratch -o $(@D) --seed $(SEED) $(BASE_FLAGS)
endif

# With SFT_AVERAGE=K the SFT model is a mean: of what the training ended with, and of the K - 1 checkpoints before it.
ifdef SFT_AVERAGE
SFT_END := $(R)/sft.last$(SFT_AVERAGE)
SETTINGS += SFT_AVERAGE=$(SFT_AVERAGE) $(SFT_SAVE_FLAGS)
.PRECIOUS: $(SFT_END)/MANIFEST.json
$(R)/sft/MANIFEST.json: $(SFT_END)/MANIFEST.json $(R)/settings
	$(RUN) pt-merge last $(SFT_END).run/checkpoints $(SFT_END) --last $(SFT_AVERAGE) -o $(@D)
endif
$(or $(SFT_END),$(R)/sft)/MANIFEST.json: $(C)/sft.jsonl $(BASE_MANIFEST) $(LEARNED) $(R)/settings
	$(RUN) pt-sft $< -m $(BASE) -o $(@D) --seed $(SEED) $(SFT_FLAGS)$(if $(SFT_END), $(SFT_SAVE_FLAGS) --keep-checkpoints $$(($(SFT_AVERAGE) - 1)))

# Preference pairs: samples of the SFT model and of another, several aspects rated, mean; chosen = best, rejected = a
# random lower one. The larger scales take the published pairs instead (PAIRS=published).
# `make tulu3 RATERS="--judge http://HOST:8000/v1"` lets a language model rate the four aspects of the paper.
ifneq ($(PAIRS),published)
$(R)/pool.sft.jsonl: $(C)/prompts.jsonl $(R)/sft/MANIFEST.json $(R)/settings
	$(RUN) pt-sample $< -m $(R)/sft -n $(POOL_SFT) --seed $(SEED) $(POOL_FLAGS) -o $@
$(R)/pool.jsonl: $(R)/pool.sft.jsonl $(BASE_MANIFEST) $(R)/settings
	$(RUN) pt-sample $< -m $(BASE) -n $(POOL_BASE) --append --seed $(SEED) $(POOL_FLAGS) -o $@
$(R)/rated.jsonl: $(R)/pool.jsonl $(R)/settings
	$(RUN) pt-score $< $(RATERS) -o $@
$(C)/pairs.jsonl: $(R)/rated.jsonl $(R)/settings
	pt-curate pair $< --seed $(SEED) $(PAIR_FLAGS) -o $@
DPO_PARTS := $(R)/pool.sft.jsonl $(R)/pool.jsonl $(R)/rated.jsonl $(C)/pairs.jsonl
endif

$(R)/dpo/MANIFEST.json: $(C)/pairs.jsonl $(R)/sft/MANIFEST.json $(R)/settings
	$(RUN) pt-dpo $< -m $(R)/sft -o $(@D) --seed $(SEED) --loss sigmoid_norm $(DPO_FLAGS)

$(R)/rlvr/MANIFEST.json: $(C)/rlvr.jsonl $(R)/dpo/MANIFEST.json $(R)/settings
	$(RUN) pt-rlvr $< -m $(R)/dpo -o $(@D) --seed $(SEED) $(RLVR_FLAGS)

# The examination of a model: $(call examine,OUTPUTS,MODEL,MANIFEST,FLAGS)
define examine
$(1).samples.jsonl: $(D)/heldout.jsonl $(3) $(R)/settings
	$(RUN) pt-sample $$< -m $(2) -n $(EVAL_SAMPLES) --seed $(SEED) $(EVAL_FLAGS)$(4) -o $$@
$(1).scored.jsonl: $(1).samples.jsonl
	$(RUN) pt-score --verify $$< -o $$@
$(1).json: $(1).scored.jsonl
	pt-eval $$< -o $$@
$(1).rated.jsonl: $(1).samples.jsonl $(R)/settings
	$(RUN) pt-score $$< $(RATERS) -o $$@
endef
$(eval $(call examine,$(E)/base,$(BASE),$(BASE_MANIFEST), $(BASE_EVAL_FLAGS)))
$(foreach stage,sft dpo rlvr,$(eval $(call examine,$(E)/$(stage),$(R)/$(stage),$(R)/$(stage)/MANIFEST.json)))

# How often the raters prefer a DPO sample to an SFT sample of the same prompt.
$(E)/win.json: $(E)/dpo.rated.jsonl $(E)/sft.rated.jsonl
	pt-eval $(E)/dpo.rated.jsonl --against $(E)/sft.rated.jsonl -o $@

# The stages that recipes have in common, as their tables take them.
STARTS = --stage base $(BASE) $(E)/base.json --stage sft $(R)/sft $(E)/sft.json$(if $(SFT_END), --part sft $(SFT_END))

$(R)/table.json: $(foreach stage,base sft dpo rlvr,$(E)/$(stage).json) $(E)/win.json scripts/report.py
	python scripts/report.py -o $@ --recipe tulu3 --scale $(SCALE) --seed $(SEED) \
	  $(STARTS) \
	  --stage dpo $(R)/dpo $(E)/dpo.json --stage rlvr $(R)/rlvr $(E)/rlvr.json \
	  $(foreach part,$(DPO_PARTS),--part dpo $(part)) --win dpo sft $(E)/win.json
