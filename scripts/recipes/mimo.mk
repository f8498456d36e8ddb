# make mimo-merge              MiMo-V2-Flash: a teacher a domain by RLVR from the SFT model of tulu3, and their merge
#
# The merge is the baseline of the recipe's third stage, which distils the teachers into one model: what their weights
# alone give. Base, SFT and prompts are those of tulu3 (its variables hold here); MERGE=METHOD MERGE_FLAGS="..." is
# another merge, and TEACHER_FLAGS another training.

ifeq ($(wildcard scripts/recipes/mimo.$(SCALE).mk),)
.PHONY: mimo-merge
mimo-merge:
	$(error mimo-merge has settings for SCALE=tiny only, none for SCALE=$(SCALE))
else
include scripts/recipes/mimo.$(SCALE).mk

M := $(RUNS)/$(SCALE)/mimo
TEACHERS := $(TEACHER_DOMAINS:%=teacher-%)
MIMO_STAGES := $(TEACHERS) merge

.PRECIOUS: $(TEACHER_DOMAINS:%=$(M)/clean/%.jsonl) \
  $(foreach stage,$(MIMO_STAGES),$(M)/$(stage)/MANIFEST.json $(EXAMINED:%=$(M)/eval/$(stage).%))

.PHONY: mimo-merge
mimo-merge: $(M)/table.json
	@python scripts/report.py --show $<

$(M)/teacher.settings: SETTINGS = $(SEED) $(TEACHER_FLAGS)
$(M)/merge.settings: SETTINGS = $(MERGE) $(MERGE_FLAGS)

$(TEACHER_DOMAINS:%=$(M)/clean/%.jsonl): $(M)/clean/%.jsonl: $(C)/rlvr.jsonl
	pt-curate filter 'domain == "$*"' $< -o $@

$(TEACHERS:%=$(M)/%/MANIFEST.json): $(M)/teacher-%/MANIFEST.json: $(M)/clean/%.jsonl $(R)/sft/MANIFEST.json $(M)/teacher.settings
	$(RUN) pt-rlvr $< -m $(R)/sft -o $(@D) --seed $(SEED) $(TEACHER_FLAGS)

# Every method here takes the SFT model as the base from which the teachers differ, but the plain mean (linear) has none.
$(M)/merge/MANIFEST.json: $(TEACHERS:%=$(M)/%/MANIFEST.json) $(R)/sft/MANIFEST.json $(M)/merge.settings
	$(RUN) pt-merge $(MERGE)$(if $(filter-out linear,$(MERGE)), --base $(R)/sft) $(TEACHERS:%=$(M)/%) -o $(@D) $(MERGE_FLAGS)

$(foreach stage,$(MIMO_STAGES),$(eval $(call examine,$(M)/eval/$(stage),$(M)/$(stage),$(M)/$(stage)/MANIFEST.json)))

$(M)/table.json: $(E)/base.json $(E)/sft.json $(MIMO_STAGES:%=$(M)/eval/%.json) scripts/report.py
	python scripts/report.py -o $@ --recipe mimo --scale $(SCALE) --seed $(SEED) \
	  $(STARTS) \
	  $(foreach stage,$(MIMO_STAGES),--stage $(stage) $(M)/$(stage) $(M)/eval/$(stage).json) --kept merge sft $(TEACHERS)
endif
